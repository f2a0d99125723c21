"""The OpenAPI document is true: schemathesis asks the running service all it says, and more."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys

from generation import errors
from generation.api.native.routes import api
from tests.support.keys import amake_key
from tests.support.service import PRODUCTION

# Or it would fail of somebody else's change.
REPRODUCIBLE = ["--seed", "6", "--generation-deterministic"]
# What no schema can say: which models are offered, which Idempotency-Key is used already.
BEYOND = ["--exclude-checks", "positive_data_acceptance"]
BOUNDED = [
    "--max-examples",
    "10",
    "--request-timeout",
    "20",
    "--no-shrink",
    "--continue-on-failure",
]


async def test_the_document_is_true_of_the_running_service(serve, orm, peppered, tmp_path):
    key = await amake_key()
    async with serve(**PRODUCTION, LOG_LEVEL="WARNING") as service:
        url = f"http://127.0.0.1:{service.port}/api/v1/openapi.json"
        asking = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "run", url,
            "--header", f"Authorization: Bearer {key}", "--checks", "all", "--no-color",
            *REPRODUCIBLE, *BOUNDED, *BEYOND,
            cwd=tmp_path,  # it leaves things where it stands
            env={**os.environ, "PYTHONWARNINGS": "default"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await asking.communicate())[0].decode()
        assert asking.returncode == 0, said
        assert "Traceback" not in service.log


def test_the_document_has_an_example_of_every_problem():
    unseen = {  # no valid request gets them, or only a broken service gives them
        errors.BadRequest, errors.MethodNotAllowed,
        errors.RowRefused, errors.RuntimeNotOpen, errors.ConnectionHeld, errors.LLMError,
        errors.Abandoned,
        errors.HeldInTransaction, errors.WrongThread, errors.OwnCallFailed, errors.NoReply,
        errors.UserNotNamed,  # its routes have the user in their path
    }  # fmt: skip
    kinds = {
        kind for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.StaccatoError) and kind not in unseen
    }  # fmt: skip
    document = json.dumps(api.get_openapi_schema())
    assert [kind.slug for kind in kinds if f'"{kind.problem_type()}"' not in document] == []
