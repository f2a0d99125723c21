"""docs/clients.md: each block works as it stands."""

from __future__ import annotations

import asyncio
import json
import re

from tests.clients.environment import NODE, NODE_MODULES, PYTHON, needs_clients
from tests.support.forked import ROOT

pytestmark = needs_clients
PAGE = (ROOT / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"^```(python|js)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


# One process a language, because to import the clients takes longer than all they do.
RUN = "import json, sys\nfor block in json.loads(sys.argv[1]): exec(block, {})"


async def run(*command) -> str:
    """What a program prints. It runs where Node finds the packages."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=NODE_MODULES.parent,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return printed.decode()


async def test_each_block_works_as_it_stands(serve):
    async with serve(LLM_PROVIDER="simulated", ANTHROPIC_API_KEY="") as service:
        address = f"127.0.0.1:{service.port}"
        blocks = {"python": [], "js": []}
        for language, block in BLOCKS:
            blocks[language].append(block.replace("127.0.0.1:8000", address))
        printed = await run(PYTHON, "-c", RUN, json.dumps(blocks["python"]))
        printed += await run(NODE, "--input-type=module", "--eval", "".join(blocks["js"]))
    assert printed.count("You asked") == len(BLOCKS) == 9


def test_each_block_has_three_lines_and_the_address_of_make_run():
    for _, block in BLOCKS:
        assert block.count("\n") == 3, block
        assert "http://127.0.0.1:8000/u/1" in block, block
