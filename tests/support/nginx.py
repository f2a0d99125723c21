"""An nginx of a test's own with its default configuration, in front of a service."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

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
  server {{
    listen unix:{folder}/socket;
    location / {{
      proxy_pass http://127.0.0.1:{port};
    }}
  }}
}}
"""  # apart from its places, nothing but `proxy_pass`


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
    folder = Path(tempfile.mkdtemp(prefix="staccato-nginx-", dir="/tmp"))
    folder.chmod(0o755)  # its worker has an account of its own if this is root
    configuration = folder / "conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port))
    process = subprocess.Popen(
        [find(), "-p", folder, "-e", folder / "log", "-c", configuration],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await until(lambda: process.poll() is not None or listens(folder / "socket"), "nginx")
        assert process.poll() is None, (folder / "log").read_text()
        yield folder / "socket"
    finally:
        process.terminate()
        process.wait(HANG_S)
        shutil.rmtree(folder)
