"""One DATABASE_URL serves two drivers."""

from __future__ import annotations

import pytest
from django.conf import settings

from generation import checks
from generation.database import dsn, libpq
from project.settings import database


def of(url: str) -> dsn.Target:
    return dsn.from_django(database(url))


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGSSLMODE", "PGSERVICE", "PGAPPNAME"):
        monkeypatch.delenv(name, raising=False)


def test_a_url_says_the_same_to_both_drivers():
    target = of("postgresql://me:p%40ss@db.example:6432/name?connect_timeout=3")
    assert target.address == "postgresql://me@db.example:6432/name"
    assert target["password"] == "p@ss"
    assert target.connect_timeout_s == 3
    assert target.server_settings == {"application_name": "staccato", "timezone": "UTC"}


@pytest.mark.parametrize("seconds", ["0", "-1", ""])
def test_a_connect_timeout_that_libpq_takes_for_none_is_none(seconds):
    assert of(f"postgresql://h/n?connect_timeout={seconds}").connect_timeout_s is None


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql:///n?host=/run/postgresql&user=me", "postgresql://me@/run/postgresql:5432/n"),
        ("postgresql://me@%2Frun%2Fpg/n", "postgresql://me@/run/pg:5432/n"),
        ("postgresql://me@h1,h2:6432/n", "postgresql://me@h1:5432,h2:6432/n"),
        ("postgresql://me@h1,h2/n?port=6432", "postgresql://me@h1:6432,h2:6432/n"),
        ("postgresql://me:secret@[::1]:6432/n", "postgresql://me@[::1]:6432/n"),
        ("host=h1,h2 port=1,2 user=me dbname=n password=secret", "postgresql://me@h1:1,h2:2/n"),
    ],
)
def test_an_address_names_all_hosts_and_no_password(url, address):
    assert of(url).address == address


def test_the_systems_authorities_are_trusted_for_the_hosts_name_alone():
    assert of("postgresql://h/n?sslrootcert=system")["sslmode"] == "verify-full"


def test_what_asyncpg_does_not_know_is_named_and_left_out(caplog):
    target = of("postgresql://h/n?channel_binding=require&options=-csearch_path%3Dx")
    assert "channel_binding" in caplog.text
    assert target.server_settings["options"] == "-csearch_path=x"


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer&gssencmode=disable&sslsni=1&client_encoding=utf8",
        "channel_binding=require&sslmode=verify-full",  # which proves as much
        "keepalives_idle=30&tcp_user_timeout=1000&load_balance_hosts=random",
    ],
)
def test_what_asks_for_nothing_that_asyncpg_can_not_do_is_not_spoken_of(query, caplog):
    of(f"postgresql://h/n?{query}")
    assert not caplog.text


def test_an_entry_may_leave_out_what_django_fills_in():
    entry = {"ENGINE": "django.db.backends.postgresql", "NAME": "n", "PORT": 6432}
    entry["OPTIONS"] = {"connect_timeout": 0, "context": object(), "pool": {"max_size": 4}}
    target = dsn.from_django(entry)
    assert (target["dbname"], target["port"], target["host"]) == ("n", "6432", "")
    assert target.connect_timeout_s is None


def test_djangos_role_is_the_hot_paths_too():
    entry = database("postgresql://h/n")
    entry["OPTIONS"]["assume_role"] = "writer"
    assert dsn.from_django(entry).server_settings["role"] == "writer"


CANARY = "canary"


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("@h/n?pgbouncer=true&connection_limit=1", "DB_POOL_MODE=pgbouncer-transaction"),
        ("@h/n?connection_limit=1", "no parameter connection_limit; set DB_POOL_SIZE"),
        ("@h/n?schema=public", "no parameter schema; use options=-csearch_path%3Dname"),
        ("@h/n?supa=base", "no parameter supa; leave it out"),
        ("@h/n?sslmode=no-verify", "its sslmode must be one of .*; use require"),
        ("@h/n?sslmode=REQUIRE", "its sslmode must be one of disable, allow"),
        ("@h/n?target_session_attrs=master", "its target_session_attrs must be one of any"),
        ("@h/n?load_balance_hosts=1", "its load_balance_hosts must be"),
        ("@h/n?connect_timeout=5s", "its connect_timeout is not a whole number"),
        ("@h/n?keepalives_idle=x", "its keepalives_idle is not a whole number"),
        ("@h1,h2,h3/n?port=1,2", "it has 2 ports for 3 hosts"),
        ("@h1,h2/n?hostaddr=127.0.0.1", "its host and hostaddr are not equally many"),
        ("@h/n?service=ours", "set PGSERVICE, which both read"),
        ("@h:99999/n", "its port is not a number"),
        ("@/n?host=@abstract", "its host is an abstract socket"),
        ("@h/n?sslmode=require&sslrootcert=system", "needs sslmode=verify-full"),
        ("@h/n?sslnegotiation=direct", "needs sslmode=require or stricter"),
        ("a%zz@h/n", "write % in the user or password as %25"),
        ("@canary@h/n", "%40"),
        ("/a@h/n", "%2F"),
        ("/a?b=c@h/n", "as %3F, %2F and %40"),
    ],
)
def test_a_bad_url_ends_with_one_line_that_names_the_parameter(rest, line):
    with pytest.raises(SystemExit, match=line) as caught:
        database(f"postgresql://user:{CANARY}{rest}")
    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_entry_of_another_projects_databases_is_an_error_of_a_check(monkeypatch):
    entry = database("postgresql://h/n")
    entry |= {"HOST": "h1,h2,h3", "PORT": "1,2"}
    monkeypatch.setitem(settings.DATABASES, "default", entry)
    (found,) = checks.check_database()
    assert "it has 2 ports for 3 hosts" in found.msg


def test_the_environment_means_the_same_without_libpq(monkeypatch):
    given = {
        "PGHOST": "a,b", "PGHOSTADDR": "::1,::2", "PGPORT": "1,2", "PGUSER": "u", "PGPASSWORD": "p",
        "PGPASSFILE": "/f", "PGSSLMODE": "require", "PGSSLROOTCERT": "/r", "PGSSLCERT": "/c",
        "PGSSLKEY": "/k", "PGSSLCRL": "/l", "PGSSLCRLDIR": "/d", "PGSSLSNI": "0",
        "PGSSLMINPROTOCOLVERSION": "TLSv1.3", "PGSSLMAXPROTOCOLVERSION": "TLSv1.3",
        "PGSSLNEGOTIATION": "direct", "PGSSLCERTMODE": "allow", "PGREQUIREAUTH": "none",
        "PGREQUIREPEER": "x", "PGCHANNELBINDING": "require", "PGCONNECT_TIMEOUT": "3",
        "PGDATABASE": "d", "PGAPPNAME": "n", "PGOPTIONS": "-c a=b", "PGCLIENTENCODING": "UTF8",
        "PGTARGETSESSIONATTRS": "primary", "PGLOADBALANCEHOSTS": "random", "PGGSSLIB": "gssapi",
        "PGGSSENCMODE": "disable", "PGKRBSRVNAME": "k", "PGGSSDELEGATION": "1",
    }  # fmt: skip
    for named in ({}, given):
        for name, value in named.items():
            monkeypatch.setenv(name, value)
        guessed, known = libpq.of_environment(), libpq.defaults()
        assert guessed == {name: known[name] for name in guessed}
    assert len(guessed) == len(given)
