"""What is shipped for a deployment's Prometheus and Grafana, and the tool that judges it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/staccato.rules.yml"
DASHBOARD = ROOT / "deploy/grafana/staccato.json"
INCIDENTS = sorted((ROOT / "tests/deploy/incidents").glob("*.yml"))


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def expressions(document: Any) -> list[str]:
    """Every PromQL expression and every query of a variable, wherever it stands."""
    if isinstance(document, list):
        return [each for part in document for each in expressions(part)]
    if not isinstance(document, dict):
        return []
    own = [document[key] for key in ("expr", "definition") if key in document]
    return own + expressions(list(document.values()))


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics of an expression, each with the labels that it is selected by."""
    found = re.findall(r"\b(staccato_\w+)(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen))) for name, chosen in found]


def promtool(*arguments: str) -> str:
    """Returns what it prints; fails with that where it finds a fault.

    Skips the test where there is no promtool; in CI that is a failure.
    """
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "CI has promtool; `.ci/run` installs it"
        pytest.skip("there is no promtool here: `apt-get install prometheus`")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
