"""The rules of this house that no linter knows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file
    for folder in ("generation", "project", "tests", "benchmarks")
    for file in (ROOT / folder).rglob("*.py")
    if "migrations" not in file.parts and ".venv" not in file.parts
)
EXCEPTION = re.compile(r"#\s*(?:ruff: )?(?:noqa\b|type: ignore|pragma: no cover)")
WITH_REASON = re.compile(
    r"# (?:ruff: )?(?:noqa: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*|type: ignore\[[a-z, -]+\]"
    r"|pragma: no cover)  # \S"
)


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_each_exception_to_a_rule_names_the_rule_and_gives_its_reason():
    bare = [
        f"{name(file)}:{number}: {line.strip()}"
        for file in FILES
        if file != Path(__file__)
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if EXCEPTION.search(line) and not WITH_REASON.search(line)
    ]
    assert bare == []


def test_each_ignored_import_gives_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    ignored = re.findall(r"(?m)^ *\"[\w.*]+ -> [\w.*]+\".*$", text)
    assert [line for line in ignored if not re.search(r"#\s+\S", line)] == []


def test_no_test_module_is_imported_by_another():
    """What tests share is in tests/support: a test that is imported may run twice."""
    imported = [
        f"{name(file)}: {module}"
        for file in FILES
        for module in re.findall(
            r"(?m)^\s*(?:from|import)\s+(tests\.(?:\w+\.)*(?:test_\w+|conftest))\b",
            file.read_text(),
        )
    ]
    assert imported == []


def test_no_bound_of_a_wait_is_one_that_a_busy_machine_reaches():
    """`tests/support/waiting.py` has `until` and `HANG_S`; a limit that is meant has a name."""
    bound = re.compile(r"(?:asyncio\.timeout|wait_for)\((?:.*, )?[1-9][\d.]*\)")
    short = [
        f"{name(file)}: {line.strip()}"
        for file in FILES
        if "tests" in file.parts
        for line in file.read_text().splitlines()
        if bound.search(line)
    ]
    assert short == []


def test_no_file_grows_beyond_what_a_reader_holds():
    assert [name(file) for file in FILES if len(file.read_text().splitlines()) > 420] == []
