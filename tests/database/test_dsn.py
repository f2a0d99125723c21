"""One DATABASE_URL serves two drivers."""

from __future__ import annotations

import ssl

import pytest

from generation.database import dsn
from project.settings import database


def of(url: str):
    return dsn.from_django(database(url))


def test_a_url_says_the_same_to_both_drivers():
    url, arguments = of("postgresql://me:p%40ss@db.example:6432/name?connect_timeout=3")
    assert url.render_as_string(hide_password=False) == (
        "postgresql+asyncpg://me:p%40ss@db.example:6432/name"
    )
    assert arguments["timeout"] == 3
    assert arguments["server_settings"] == {"application_name": "staccato", "timezone": "UTC"}


def test_a_socket_folder_is_a_host():
    url, _arguments = of("postgresql:///name?host=/run/postgresql&user=me")
    assert (url.host, url.port, url.username) == ("/run/postgresql", None, "me")


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-full"])
def test_a_tls_mode_goes_by_its_name(mode):
    assert of(f"postgresql://h/n?sslmode={mode}")[1]["ssl"] == mode


def test_certificates_make_a_context():
    _url, arguments = of("postgresql://h/n?sslmode=verify-full&sslrootcert=system")
    context = arguments["ssl"]
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_what_asyncpg_does_not_know_is_named_and_left_out(caplog):
    _url, arguments = of("postgresql://h/n?channel_binding=require&options=-csearch_path%3Dx")
    assert "channel_binding" in caplog.text
    assert arguments["server_settings"]["options"] == "-csearch_path=x"
    assert "channel_binding" not in str(arguments)
