"""What a start needs of its machine, and how one that fails ends."""

from __future__ import annotations

import pytest

from generation import conf
from generation.asgi.application import Application
from generation.asgi.body import BodyLimits
from generation.errors import DatabaseUnavailable
from tests.support import forked, http, service


class FailingRuntime:
    def __init__(self, error: Exception, *, at_the_end: bool = False) -> None:
        self._error = error
        self._at_the_end = at_the_end

    async def __aenter__(self):
        if not self._at_the_end:
            raise self._error

    async def __aexit__(self, *_exc):
        raise self._error


async def nothing(_scope, _receive, _send): ...


async def lifespan(runtime) -> list[dict]:
    sent: list[dict] = []

    async def receive():
        return {"type": "lifespan.whatever"}

    async def send(message):
        sent.append(message)

    application = Application(lambda: runtime, BodyLimits(conf.load()), 1.0, others=nothing)
    await application({"type": "lifespan"}, receive, send)
    return sent


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "staccato: OSError: [Errno 28] No space left on"),
        (DatabaseUnavailable("the database is away"), "staccato: the database is away"),
        (RuntimeError("two\nlines"), "staccato: RuntimeError: two lines"),
        (KeyError("x"), "staccato: KeyError: 'x'"),
    ],
)
async def test_whatever_fails_the_start_ends_it_with_one_line(error, line):
    [sent] = await lifespan(FailingRuntime(error))
    assert sent["type"] == "lifespan.startup.failed"
    assert sent["message"].startswith(line)
    assert "\n" not in sent["message"]


async def test_a_bug_that_fails_the_start_leaves_its_traceback(caplog):
    await lifespan(FailingRuntime(RuntimeError("a bug")))
    assert "Traceback" in caplog.text
    caplog.clear()
    await lifespan(FailingRuntime(OSError("no bug")))
    assert "Traceback" not in caplog.text


async def test_what_fails_the_end_is_said_as_well():
    started, ended = await lifespan(FailingRuntime(OSError("gone"), at_the_end=True))
    assert started["type"] == "lifespan.startup.complete"
    assert (ended["type"], ended["message"]) == (
        "lifespan.shutdown.failed",
        "staccato: OSError: gone",
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_fails_ends_the_process_with_a_status(database_url, tmp_path, workers):
    (tmp_path / "broken.py").write_text(
        "from generation.runtime.process import Runtime\n"
        "def fail(*_): raise OSError('no such luck')\n"
        "Runtime.__init__ = fail\n"
        "from project.asgi import application\n"
    )
    ended = forked.run(
        "uvicorn", "broken:application", "--port", "0", "--app-dir", str(tmp_path),
        "--workers", workers, env=service.environment(database_url),
    )  # fmt: skip
    # The parent of several workers stops all of them, and ends with uvicorn's own status.
    assert ended.returncode != 0 or workers == "2"
    assert "staccato: OSError: no such luck" in ended.output
    assert "Traceback" not in ended.output


async def test_without_certificates_the_service_starts_where_no_https_is_needed(serve, tmp_path):
    async with serve(SSL_CERT_FILE=str(tmp_path / "missing"), SSL_CERT_DIR=str(tmp_path)) as served:
        assert (await http.generate(served.port)).status == 200


def test_without_certificates_https_fails_the_start_with_one_line(database_url, tmp_path):
    ended = forked.run(
        "uvicorn", "project.asgi:application", "--port", "0",
        env=service.environment(
            database_url, LLM_PROVIDER="openai", OPENAI_API_KEY="k",
            SSL_CERT_FILE=str(tmp_path / "missing"), SSL_CERT_DIR=str(tmp_path),
        ),
    )  # fmt: skip
    assert ended.returncode != 0
    assert "staccato.E005: OPENAI_BASE_URL is https, but no CA certificate" in ended.output
    assert "SSL_CERT_FILE" in ended.output
