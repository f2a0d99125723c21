"""Each sslmode with each file means to asyncpg what it means to libpq, on a real server."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest

from generation.database import dsn
from tests.database.both import asyncpg_says, both_say
from tests.support.certificates import Certificates, lax
from tests.support.ports import free_port
from tests.support.postgres import PrivatePostgres

MODES = dsn.SSL_MODES
# Each key with the certificate that counts; each other certificate with its key, another, or none.
PAIRS = [
    *product(["client.crt"], (None, "client.key", "stranger.key", "missing.key", "shown.key")),
    *product([None], (None, "client.key", "missing.key")),
    *product(["stranger.crt"], (None, "client.key", "stranger.key")),
    *product(["missing.crt", "broken.crt"], (None, "client.key")),
]
HBA = b"""
local all all trust
hostssl all secure all trust
hostssl all certified all trust clientcert=verify-full
hostnossl all plain all trust
host all anyhow all trust
"""


def find_binaries() -> Path:
    """A PostgreSQL with TLS, which the embedded one lacks. Skips the test where there is none."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    assert not os.environ.get("CI"), "CI has a PostgreSQL; `.ci/run` installs it"
    pytest.skip("there is no PostgreSQL with TLS here: `apt-get install postgresql`")


def start(certificate: bytes, key: bytes, authority: bytes) -> PrivatePostgres:
    postgres = PrivatePostgres(
        find_binaries(),
        listen_addresses="127.0.0.1",
        port=free_port(),
        ssl="on",
        ssl_cert_file="server.crt",
        ssl_key_file="server.key",
        ssl_ca_file="ca.crt",
    )
    postgres.give("server.crt", certificate)
    postgres.give("server.key", key)
    postgres.give("ca.crt", authority)
    postgres.give("pg_hba.conf", HBA)
    postgres.start()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        for role in ("secure", "certified", "plain", "anyhow"):
            connection.execute(f"CREATE ROLE {role} LOGIN")
    return postgres


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(files):
    chain = b"".join(part.bytes() for part in files.server.cert_chain_pems)
    postgres = start(
        chain, files.server.private_key_pem.bytes(), Path(files.path("ca.crt")).read_bytes()
    )
    yield postgres
    postgres.remove()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Without certificates, unless a test puts them there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".postgresql").mkdir()
    return tmp_path / ".postgresql"


@pytest.fixture
def url(server, files):
    def made(user: str, *, host: str = "localhost", **options: str | None) -> str:
        """With files by their names, and options that are None left out."""
        given = {
            key: files.path(value)
            if key in {"sslrootcert", "sslcert", "sslkey", "sslcrl"}
            else value
            for key, value in options.items()
            if value is not None
        }
        port = server.port
        return f"postgresql://{user}@{host}:{port}/postgres?{urlencode(given)}"

    return made


@pytest.mark.parametrize("mode", [None, *MODES])
async def test_a_root_certificate_is_checked_as_libpq_checks_it(url, mode):
    for root, (host, user) in product(
        (None, "ca.crt", "other.crt", "missing.crt", "broken.crt"),
        # Who gets in without TLS only, has no name of the host checked.
        [*product(("localhost", "127.0.0.1"), ("secure", "anyhow")), ("localhost", "plain")],
    ):
        await both_say(url(user, host=host, sslmode=mode, sslrootcert=root))


@pytest.mark.parametrize("mode", MODES)
async def test_our_own_certificate_is_shown_as_libpq_shows_it(url, mode):
    for (certificate, key), user in product(PAIRS, ("certified", "anyhow")):
        asked = url(user, sslmode=mode, sslrootcert="ca.crt", sslcert=certificate, sslkey=key)
        await both_say(asked)


@pytest.mark.parametrize("mode", MODES)
async def test_revoked_certificates_are_refused_as_libpq_refuses_them(url, mode):
    for root, crl in product(
        (None, "ca.crt"), ("revoking.crl", "empty.crl", "missing.crl", "broken.crt")
    ):
        await both_say(url("secure", sslmode=mode, sslrootcert=root, sslcrl=crl))


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ({"sslmode": "require"}, True),
        ({"sslmode": "require", "sslrootcert": "ca.crt"}, True),
        ({"sslmode": "require", "sslrootcert": "other.crt"}, None),  # it verifies
        ({"sslmode": "require", "sslrootcert": "missing.crt"}, True),
        ({"sslmode": "verify-ca", "sslrootcert": "missing.crt"}, None),
        ({"sslmode": "prefer", "sslrootcert": "other.crt"}, False),  # rather in plain text
        ({"sslmode": "prefer", "sslrootcert": "ca.crt"}, True),
        ({"sslmode": "allow", "sslrootcert": "ca.crt"}, False),
        ({"sslmode": "verify-full", "sslrootcert": "ca.crt", "host": "127.0.0.1"}, None),
        ({"sslmode": "verify-ca", "sslrootcert": "ca.crt", "host": "127.0.0.1"}, True),
        ({"sslmode": "require", "sslrootcert": "ca.crt", "sslcrl": "revoking.crl"}, None),
        ({"sslmode": "require", "sslrootcert": "ca.crt", "sslcrl": "missing.crl"}, True),
    ],
)
async def test_these_are_the_verdicts(url, options, encrypted):
    verdict = await both_say(url("anyhow", **options))
    assert verdict == "refused" if encrypted is None else verdict[0] == encrypted


async def test_files_in_the_home_folder_count(url, files, home):
    for name, at in (("other.crt", "root.crt"), ("client.crt", "postgresql.crt")):
        (home / at).write_bytes(Path(files.path(name)).read_bytes())
    assert await both_say(url("secure", sslmode="require")) == "refused"
    (home / "root.crt").write_bytes(Path(files.path("ca.crt")).read_bytes())
    assert await both_say(url("secure", sslmode="require")) == "refused"  # no key
    (home / "postgresql.key").write_bytes(Path(files.path("client.key")).read_bytes())
    (home / "postgresql.key").chmod(0o600)
    assert (await both_say(url("certified", sslmode="verify-full")))[0]
    (home / "root.crl").write_bytes(Path(files.path("revoking.crl")).read_bytes())
    assert await both_say(url("certified", sslmode="verify-full")) == "refused"


async def test_the_environment_counts(url, files, monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert await both_say(url("secure")) == "refused"
    monkeypatch.setenv("PGSSLROOTCERT", files.path("ca.crt"))
    assert (await both_say(url("secure")))[0]
    monkeypatch.setenv("PGSSLCRL", files.path("revoking.crl"))
    assert await both_say(url("secure")) == "refused"


async def test_a_host_is_verified_by_its_name_where_hostaddr_says_where_it_is(url):
    options = {"sslmode": "verify-full", "sslrootcert": "ca.crt", "hostaddr": "127.0.0.1"}
    assert (await both_say(url("secure", **options)))[0]
    assert await both_say(url("secure", host="elsewhere.example", **options)) == "refused"


async def test_a_certificate_that_was_replaced_is_read_again(url, files, home):
    asked = url("secure", sslmode="require")
    (home / "root.crt").write_bytes(Path(files.path("other.crt")).read_bytes())
    assert await asyncpg_says(asked) == "refused"
    (home / "fresh").write_bytes(Path(files.path("ca.crt")).read_bytes())
    (home / "fresh").rename(home / "root.crt")
    assert (await asyncpg_says(asked))[0]


async def test_versions_of_tls_are_bounded_as_libpq_bounds_them(url):
    for low, high in (("TLSv1.3", None), (None, "TLSv1.2"), ("TLSv1.3", "TLSv1.2")):
        versions = {"ssl_min_protocol_version": low, "ssl_max_protocol_version": high}
        await both_say(url("secure", sslmode="require", **versions))


async def test_an_old_private_authority_is_accepted(tmp_path):
    authority, certificate, key = lax("localhost")
    (tmp_path / "ca.crt").write_bytes(authority)
    postgres = start(certificate, key, authority)
    try:
        port = postgres.port
        asked = f"sslmode=verify-full&sslrootcert={tmp_path / 'ca.crt'}"
        at = f"postgresql://secure@localhost:{port}/postgres?{asked}"
        assert (await both_say(at))[0]
    finally:
        postgres.remove()
