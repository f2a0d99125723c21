"""The OpenAPI documents are true: schemathesis asks the running service all they say, and more."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys

from generation import errors
from generation.api.anthropic.routes import api as anthropic
from generation.api.native.routes import api
from generation.api.openai.routes import api as openai
from tests.support.dialects import AnthropicDialect
from tests.support.keys import amake_key
from tests.support.provider import Exchange, says
from tests.support.service import PRODUCTION

# Or it would fail of somebody else's change.
REPRODUCIBLE = ["--seed", "6", "--generation-deterministic"]
# What no schema can say: which models are offered, which Idempotency-Key is used already.
BEYOND = ["--exclude-checks", "positive_data_acceptance"]
BOUNDED = ["--request-timeout", "20", "--no-shrink", "--continue-on-failure"]
EXAMPLES = 10
# The rest is the same code as the native API's.
FEW_EXAMPLES, FEW_PHASES = 8, ["--phases", "examples,fuzzing"]
ANSWER = says(200, AnthropicDialect().answer())
COUNT = says(200, {"input_tokens": 49})


async def behave(exchange: Exchange) -> None:
    await (COUNT if exchange.path.endswith("count_tokens") else ANSWER)(exchange)


async def judge(tmp_path, schema: str, key: str, examples: int, *options: str) -> None:
    """Fails with what schemathesis finds wrong."""
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", schema, *options,
        "--header", f"Authorization: Bearer {key}", "--checks", "all", "--no-color",
        "--max-examples", str(examples), *REPRODUCIBLE, *BOUNDED, *BEYOND,
        cwd=tmp_path,  # it leaves things where it stands
        env={**os.environ, "PYTHONWARNINGS": "default"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await asking.communicate())[0].decode()
    assert asking.returncode == 0, said


async def test_the_documents_are_true_of_the_running_service(
    serve, orm, llm, peppered, tmp_path, subtests
):
    llm.behave = behave
    key = await amake_key()
    users_key = await amake_key(scope="user", user_id=1)
    async with serve(**PRODUCTION, LOG_LEVEL="WARNING") as service:
        url = f"http://127.0.0.1:{service.port}"
        with subtests.test("native"):
            await judge(tmp_path, f"{url}/api/v1/openapi.json", key, EXAMPLES)
        with subtests.test("other vendors'"):  # in one process, which takes seconds to start
            both = tmp_path / "both.json"
            both.write_text(
                json.dumps(
                    merged(
                        openai.get_openapi_schema(path_prefix="/v1"),
                        anthropic.get_openapi_schema(path_prefix="/v1"),
                    )
                )
            )
            options = ["--url", url, *FEW_PHASES]
            await judge(tmp_path, str(both), users_key, FEW_EXAMPLES, *options)
        assert "Traceback" not in service.log


def merged(first: dict, second: dict) -> dict:
    """Two documents as one, since they have no name in common."""
    return {**first, "paths": {**first["paths"], **second["paths"]}}


def test_the_document_has_an_example_of_every_problem():
    unseen = {  # no valid request gets them, or only a broken service gives them
        errors.BadRequest, errors.MethodNotAllowed,
        errors.RowRefused, errors.RuntimeNotOpen, errors.ConnectionHeld, errors.LLMError,
        errors.Abandoned,
        errors.HeldInTransaction, errors.WrongThread, errors.OwnCallFailed, errors.NoReply,
        errors.LimitReached,  # the base of those that are raised
        errors.UserNotNamed,  # its routes have the user in their path
    }  # fmt: skip
    kinds = {
        kind for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.StaccatoError) and kind not in unseen
    }  # fmt: skip
    document = json.dumps(api.get_openapi_schema())
    assert [kind.slug for kind in kinds if f'"{kind.problem_type()}"' not in document] == []
