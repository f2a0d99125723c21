"""An nginx of a test's own in front of a service: with its default configuration, or as
docs/operations.md has it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import trustme

from tests.support.waiting import HANG_S, listens, until

CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {servers}
}}
"""
PLAIN = """\
  server {{
    listen unix:{folder}/socket;
    location / {{
      proxy_pass http://127.0.0.1:{port};
    }}
  }}
"""  # apart from its places, nothing but `proxy_pass`
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"


def find() -> str:
    """Skips the test where there is no nginx; in CI that is a failure."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        assert not os.environ.get("CI"), "CI has an nginx; `.ci/run` installs it"
        pytest.skip("there is no nginx here: `apt-get install nginx-light`")
    return program


@contextlib.asynccontextmanager
async def before(port: int):
    """Gives the path of the socket on which nginx listens, until the block ends."""
    with _folder() as folder:
        async with _running(folder, PLAIN.format(folder=folder, port=port)):
            yield folder / "socket"


@contextlib.asynccontextmanager
async def as_documented(port: int, *, api: int, pages: int):
    """Speak TLS on a port as the documentation has it, until the block ends."""
    with _folder() as folder:
        certificate = trustme.CA().issue_cert("localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
        places = {
            "listen 443 ssl": f"listen unix:{folder}/socket; listen 127.0.0.1:{port} ssl",
            "/etc/ssl/example.org.pem": f"{folder}/both.pem",
            "/etc/ssl/example.org.key": f"{folder}/both.pem",
            "127.0.0.1:8000": f"127.0.0.1:{api}",
            "127.0.0.1:8001": f"127.0.0.1:{pages}",
            "example.org": "localhost",
        }
        to_pages, server = re.findall(r"(?s)```nginx\n(.*?)```", OPERATIONS.read_text())
        upstream, _, location = to_pages.partition("\n\n")
        servers = (
            f"{upstream}\n{server.replace('    location / {', f'{location}    location / {{')}"
        )
        for documented, here in places.items():
            assert documented in servers, f"the documentation lacks {documented}"
            servers = servers.replace(documented, here)
        async with _running(folder, servers):
            yield


@contextlib.contextmanager
def _folder():
    folder = Path(tempfile.mkdtemp(prefix="staccato-nginx-", dir="/tmp"))
    folder.chmod(0o755)  # its worker has an account of its own if this is root
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def _running(folder: Path, servers: str):
    configuration = folder / "conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, servers=servers))
    process = subprocess.Popen(
        [find(), "-p", folder, "-e", folder / "log", "-c", configuration],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await until(lambda: process.poll() is not None or listens(folder / "socket"), "nginx")
        assert process.poll() is None, (folder / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(HANG_S)
