"""The Python and the Node that have the clients: `make clients` makes both."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

_HERE = Path(sys.prefix, "clients")
PYTHON = _HERE / "bin" / "python"
NODE = _HERE / "bin" / "node"
NODE_MODULES = _HERE / "node" / "node_modules"
needs_clients = pytest.mark.skipif(
    not (PYTHON.exists() and NODE_MODULES.exists()) and "CI" not in os.environ,
    reason="run `make clients` first",
)
