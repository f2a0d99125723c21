"""The blocks of docs/embedding.md that need what this project has: Channels, DRF, CORS headers."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "embedding.md"


def blocks_of(heading: str) -> list[str]:
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "theirs"}
    exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_channels_router(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "config.settings")
    [block] = blocks_of("Under your server")
    assert "http" in run(block)["application"].application_mapping


def test_the_mounted_endpoints() -> None:
    ninja, drf, cors = map(run, blocks_of("Mount the API behind your own logins"))
    assert "/llm/generate" in str(ninja["api"].get_openapi_schema(path_prefix="/")["paths"])
    [pattern] = drf["urlpatterns"]
    assert pattern.resolve("api/v1/llm/generate")
    assert cors["CORS_ALLOW_CREDENTIALS"]
