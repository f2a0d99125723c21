"""How a host's program runs its laws: one after the other, each within bounds of time."""

from __future__ import annotations

import asyncio
import faulthandler
import sys
from collections.abc import Callable
from typing import Any

LIMIT_S = 60.0  # then it says where it hangs


def run(*laws: Callable[[], Any]) -> None:
    for law in laws:
        sys.stdout.write(f"{law.__name__}\n")
        sys.stdout.flush()
        faulthandler.dump_traceback_later(2 * LIMIT_S, exit=True)
        if asyncio.iscoroutinefunction(law):
            asyncio.run(asyncio.wait_for(law(), LIMIT_S))
        else:
            law()
    faulthandler.cancel_dump_traceback_later()
