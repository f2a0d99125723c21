"""The documents name what exists: links, folders, libraries, commands, make's targets."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from django.core.management import get_commands

ROOT = Path(__file__).parents[2]
PAPERS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere():
    for page in PAPERS:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if link.startswith(("http://", "https://")):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_command_exists():
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for page in PAPERS:
        text = page.read_text()
        for command in re.findall(r"manage\.py ([a-z_]+)", text):
            assert command in get_commands(), f"{page.name}: manage.py {command}"
        for inline, line in re.findall(r"`make ([a-z]+)|^make ([a-z]+)", text, re.MULTILINE):
            assert (inline or line) in targets, f"{page.name}: make {inline or line}"


def test_every_path_in_the_documents_exists():
    """`generation/…`, `tests/…` and the like, in backticks; `…` and `*` stand for names."""
    for page in PAPERS:
        for path in re.findall(
            r"`((?:generation|project|tests|docs|benchmarks)/[\w./]*)`", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_map_has_every_folder_and_module_of_the_app():
    listed = set(re.findall(r"`([\w.]+)/?`", ARCHITECTURE))
    for entry in (ROOT / "generation").iterdir():
        if entry.name.startswith("_") or entry.name == "py.typed":
            continue
        assert entry.name in listed, f"ARCHITECTURE.md lacks generation/{entry.name}"


def test_the_layers_in_the_map_are_those_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [each["layers"] for each in contracts["contracts"] if each.get("exhaustive")]
    shown = "\n".join(layer.replace(" | ", "  ") for layer in layers)
    assert f"```\n{shown}\n```" in ARCHITECTURE


def test_every_library_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["run"], *extras["dev"]]:
        name = re.match(r"[\w.-]+", requirement)[0]
        if name == project["name"]:  # one of its extras
            continue
        assert re.search(rf"^\| [^|]*\b{name}\b", ARCHITECTURE, re.MULTILINE), name


def test_a_run_has_the_versions_that_are_tested():
    """Tests install their packages on top of those of a run."""
    run, tested = (
        {line for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert run < tested


def test_the_index_lists_every_decision():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for record in folder.glob("[0-9]*.md"):
        assert f"({record.name})" in index, record.name
        number, date = re.match(r"# (\d{4}) .+\n\n(\d{4}-\d\d-\d\d) ", record.read_text()).groups()
        assert record.name.startswith(number)
        assert f"({record.name}) | {date} |" in index, record.name
