"""Runs a command whose DATABASE_URL names the PostgreSQL of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import urlencode

environment = dict(os.environ)  # as it is before the settings change it

from project import embedded_postgres  # noqa: E402  # see above
from tests.settings import DATABASES, OF_ANOTHER_VERSION  # noqa: E402  # see above

at = DATABASES["default"]
if "SERVER" in at:
    embedded_postgres.hold(**at["SERVER"])  # while this process lives
names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD"}
given = {name: at[key] for name, key in names.items() if at.get(key)}
url = f"postgresql:///{at['NAME']}?{urlencode(given)}"
try:
    done = subprocess.run(sys.argv[1:], env={**environment, "DATABASE_URL": url}, check=False)
finally:
    if OF_ANOTHER_VERSION is not None:
        OF_ANOTHER_VERSION.remove()
sys.exit(done.returncode)
