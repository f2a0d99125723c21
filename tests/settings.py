"""The project's settings, on a database of the tests' own."""

import os
import tempfile

os.environ.setdefault("DEBUG", "1")
os.environ["LLM_PROVIDER"] = "simulated"

from project import embedded_postgres
from project.settings import *  # noqa: F403  # Django settings are one namespace
from project.settings import BASE_DIR, DATABASE_URL, DATABASES, database
from tests.support.postgres import FLEETING, PrivatePostgres
from tests.support.waiting import PATIENT

# One server for this process and its children, who import these settings, too.
OF_ANOTHER_VERSION = None
if os.environ.get("TEST_POSTGRES") and "TEST_POSTGRES_URL" not in os.environ:
    OF_ANOTHER_VERSION = PrivatePostgres(max_connections=300)
    OF_ANOTHER_VERSION.start()  # conftest.py removes it
    os.environ["TEST_POSTGRES_URL"] = OF_ANOTHER_VERSION.url
if "TEST_POSTGRES_URL" in os.environ:
    DATABASES["default"] = database(os.environ["TEST_POSTGRES_URL"])
elif DATABASE_URL:
    DATABASES["default"] = database(DATABASE_URL)
else:
    DATABASES["default"] |= embedded_postgres.address(
        BASE_DIR / "var" / "tests", max_connections="300", **FLEETING
    )
# The workers of a run share one, and runs at the same time, as on two Pythons, don't.
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))[:16]
DATABASES["default"]["TEST"] = {"NAME": f"test_staccato_{RUN}"}
DATABASES["default"]["OPTIONS"].pop("pool")  # pytest drops the database while it would be open
STACCATO = {
    "LLM_PROVIDER": "simulated",
    "LLM_SIMULATED_LATENCY": "0",
    "JOURNAL_DIR": tempfile.mkdtemp(prefix="staccato-journal-"),
    "JOURNAL_MAX_BYTES": 1_048_576,
    **{name.removeprefix("STACCATO_"): limit for name, limit in PATIENT.items()},
    # The tests' rows of a fixed day stay, whatever the day.
    "LOG_RETENTION_DAYS": 36_500,
    "BODY_RETENTION_DAYS": 36_500,
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Each client makes an application, which would list all static files: 0.1 s for every test.
SERVESTATIC_AUTOREFRESH = SERVESTATIC_USE_FINDERS = SERVESTATIC_USE_STATIC_ROOT = False
