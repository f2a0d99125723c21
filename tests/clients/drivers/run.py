"""Runs a client's scenarios against one address after the other, and prints what it makes of them.

Works with the clients' own Python: `python run.py openai_chat URL MODEL URL MODEL …`.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import target


def results(driver: Path) -> dict[str, Any]:
    found = {}
    for name, scenario in runpy.run_path(str(driver))["SCENARIOS"].items():
        try:
            found[name] = scenario()
        except Exception as error:  # noqa: BLE001  # it is the result
            found[name] = target.describe(error)
    return found


printed = []
driver, *rest = sys.argv[1:]
for url, model in zip(rest[::2], rest[1::2], strict=True):
    target.URL, target.MODEL = url, model
    printed.append(results(Path(__file__).with_name(f"{driver}.py")))
print(json.dumps(printed))
