"""The Python that has the clients: `make clients` makes it beside the tests' own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

PYTHON = Path(sys.prefix, "clients", "bin", "python")
needs_clients = pytest.mark.skipif(
    not PYTHON.exists() and "CI" not in os.environ, reason="run `make clients` first"
)
