"""The examples of docs/operations.md are what systemd, Compose and the settings take. That nginx
takes its own, `tests/browser/test_behind_nginx.py` shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[2] / "docs"
UVICORN = "/srv/staccato/.venv/bin/uvicorn"


def example(language: str) -> str:
    """The first one of a language."""
    return re.search(rf"(?s)```{language}\n(.*?)```", (DOCS / "operations.md").read_text())[1]


def options(command: str) -> dict[str, str]:
    return dict(re.findall(r"(--[a-z-]+)(?: (?!--)(\S+))?", command))


def test_systemd_takes_the_unit_and_enables_an_instance_for_each_part(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd here")
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    unit = example("ini")
    assert UVICORN in unit
    (units / "staccato@.service").write_text(unit.replace(UVICORN, shutil.which("true")))
    for part in ("api", "pages"):
        command = ["systemd-analyze", "verify", "--man=no", units / f"staccato@{part}.service"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        subprocess.run(
            ["systemctl", f"--root={tmp_path}", "enable", f"staccato@{part}"],
            capture_output=True,
            check=True,
        )
        assert (units / f"multi-user.target.wants/staccato@{part}.service").is_symlink()


def test_compose_starts_what_systemd_starts():
    composed = yaml.safe_load(example("yaml"))
    known = set(re.findall(r"`([A-Z_]+)`", (DOCS / "configuration.md").read_text()))
    unit = dict(line.split("=", 1) for line in example("ini").splitlines() if "=" in line)
    wanted = options(unit["ExecStart"])
    assert {wanted.pop("--port"), unit["Environment"]} == {"${PORT}", "STACCATO_SERVE=%i"}
    assert set(composed["services"]) == {"api", "pages"}
    for part, made in composed["services"].items():
        found = options(made["command"])
        assert found.pop("--host") == "0.0.0.0", "else no other container reaches it"
        assert found == wanted
        assert made["environment"]["STACCATO_SERVE"] == part
        assert set(made["environment"]) <= known
        volume, _, place = made["volumes"][0].partition(":")
        assert volume in composed["volumes"]
        assert place == made["environment"]["STACCATO_JOURNAL_DIR"]
        assert made["stop_grace_period"] == f"{unit['TimeoutStopSec']}s"
    assert int(unit["TimeoutStopSec"]) > int(wanted["--timeout-graceful-shutdown"])
