"""Several servers in one DATABASE_URL: both drivers find the same one, and the next after it."""

from __future__ import annotations

import socket

import psycopg
import pytest
from sqlalchemy import text

from generation import conf
from generation.database import connecting, dsn
from generation.database.engine import Database
from project.settings import database
from tests.database.both import asyncpg_says, both_say
from tests.support.ports import free_port
from tests.support.postgres import PrivatePostgres
from tests.support.waiting import until


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture(scope="module")
def servers():
    """The second and third are read-only, as far as `target_session_attrs` can see."""
    opened = []
    for read_only in ("off", "on", "on"):
        postgres = PrivatePostgres(
            listen_addresses="127.0.0.1,::1",
            port=free_port(),
            default_transaction_read_only=read_only,
        )
        postgres.give("pg_hba.conf", b"local all all trust\nhost all all all trust\n")
        postgres.start()
        opened.append(postgres)
    yield opened
    for postgres in opened:
        postgres.remove()


@pytest.fixture
def ports(servers, monkeypatch, tmp_path):
    """Of the writable server, of both others, and one where nobody listens."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return (*(postgres.port for postgres in servers), free_port())


@pytest.mark.parametrize(
    ("hosts", "attributes", "port"),
    [
        ("127.0.0.1:{0},127.0.0.1:{1}", "any", 0),
        ("127.0.0.1:{1},127.0.0.1:{0}", "any", 1),
        ("127.0.0.1:{1},127.0.0.1:{0}", "read-write", 0),
        ("127.0.0.1:{0},127.0.0.1:{1}", "read-only", 1),
        ("127.0.0.1:{3},127.0.0.1:{1},localhost:{0}", "read-write", 0),
        ("127.0.0.1:{1},127.0.0.1:{2}", "read-write", None),
        ("127.0.0.1:{0},127.0.0.1:{1}", "standby", None),
        ("127.0.0.1:{1},127.0.0.1:{0}", "primary", 1),  # read-only, but no standby
        ("127.0.0.1:{1},127.0.0.1:{0}", "prefer-standby", 1),  # there is none, so the first
        pytest.param("127.0.0.1:{3},[::1]:{0}", "any", 0, marks=needs_ipv6),
        pytest.param("[::1]:{3},[::1]:{0}", "read-write", 0, marks=needs_ipv6),
        ("no-such-host.invalid:{0},127.0.0.1:{0}", "any", 0),
        ("no-such-host.invalid:{0},127.0.0.1:{3}", "any", None),
    ],
)
async def test_both_drivers_take_the_same_host(ports, hosts, attributes, port):
    at = hosts.format(*ports)
    verdict = await both_say(
        f"postgresql://postgres@{at}/postgres?target_session_attrs={attributes}"
    )
    assert verdict == ("refused" if port is None else (False, ports[port], "postgres"))


@pytest.mark.parametrize("mode", dsn.SSL_MODES)
async def test_a_server_without_tls_is_taken_by_the_modes_that_can_do_without(ports, mode):
    verdict = await both_say(f"postgresql://postgres@localhost:{ports[0]}/postgres?sslmode={mode}")
    expected = (False, ports[0], "postgres")
    assert verdict == (expected if mode in {"disable", "allow", "prefer"} else "refused")


async def test_one_port_serves_all_hosts_and_hostaddr_says_where_they_are(ports):
    at = f"postgresql:///postgres?host=a.invalid,b.invalid&port={ports[0]}&user=postgres"
    assert await both_say(f"{at}&hostaddr=127.0.0.1,::1") == (False, ports[0], "postgres")
    assert await both_say(at) == "refused"


async def test_a_folder_may_be_percent_encoded_and_one_of_several_hosts(servers, ports):
    folder = str(servers[0].sockets).replace("/", "%2F")
    asked = f"postgresql://postgres@127.0.0.1:{ports[3]},{folder}:{ports[0]}/postgres"
    assert await both_say(asked) == (False, None, "postgres")


async def test_a_host_that_does_not_answer_has_its_part_of_the_time(ports):
    """An address that takes connections and says nothing: a frozen server."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        frozen = silent.getsockname()[1]
        at = f"postgresql://postgres@127.0.0.1:{frozen},127.0.0.1:{ports[0]}/postgres"
        assert await asyncpg_says(at) == (False, ports[0], "postgres")  # half of 6 s
        assert await both_say(f"{at}?connect_timeout=2") == (False, ports[0], "postgres")


async def test_hosts_are_shuffled_where_load_balance_hosts_asks_for_it(ports):
    at = f"postgresql://postgres@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/postgres"
    found = {await asyncpg_says(f"{at}?load_balance_hosts=random") for _ in range(40)}
    assert found == {(False, port, "postgres") for port in ports[:2]}


async def test_a_connect_timeout_of_zero_is_no_limit(ports):
    at = f"postgresql://postgres@127.0.0.1:{ports[0]}/postgres"
    for seconds in (0, -1):
        assert (await both_say(f"{at}?connect_timeout={seconds}"))[1] == ports[0]


async def test_a_password_file_is_read_by_the_hosts_name(ports, servers, tmp_path, monkeypatch):
    with psycopg.connect(servers[0].url, autocommit=True) as connection:
        connection.execute("CREATE ROLE secret LOGIN PASSWORD 'pass:word'")
    servers[0].give("pg_hba.conf", b"local all all trust\nhost all all all scram-sha-256\n")
    with psycopg.connect(servers[0].url, autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
    file = tmp_path / ".pgpass"
    file.write_text(f"# ours\n127.0.0.1:*:*:secret:no\nlocalhost:{ports[0]}:*:secret:pass\\:word\n")
    asked = f"postgresql://secret@localhost:{ports[0]}/postgres"
    try:
        file.chmod(0o644)
        assert await both_say(asked) == "refused"  # as others may read it
        file.chmod(0o600)
        assert (await both_say(asked))[2] == "secret"
        assert await both_say(asked.replace("localhost", "127.0.0.1")) == "refused"
        file.rename(tmp_path / "elsewhere")
        assert await both_say(asked) == "refused"
        assert (await both_say(f"{asked}?passfile={tmp_path / 'elsewhere'}"))[2] == "secret"
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "elsewhere"))
        assert (await both_say(asked))[2] == "secret"
        monkeypatch.setenv("PGPASSWORD", "wrong")
        assert await both_say(asked) == "refused"
    finally:
        servers[0].give("pg_hba.conf", b"local all all trust\nhost all all all trust\n")
        with psycopg.connect(servers[0].url, autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")


async def test_the_environment_and_its_service_count(ports, tmp_path, monkeypatch):
    monkeypatch.setenv("PGHOST", "127.0.0.1,127.0.0.1")
    monkeypatch.setenv("PGPORT", f"{ports[1]},{ports[0]}")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    assert await both_say("postgresql://postgres@/postgres") == (False, ports[0], "postgres")
    for name in ("PGHOST", "PGPORT", "PGTARGETSESSIONATTRS"):
        monkeypatch.delenv(name)
    service = tmp_path / "services"
    service.write_text(f"[ours]\nhost=127.0.0.1\nport={ports[1]}\nuser=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    monkeypatch.setenv("PGSERVICE", "ours")
    assert await both_say("postgresql:///postgres") == (False, ports[1], "postgres")


async def test_lost_peers_are_found_as_keepalives_say(ports):
    at = f"postgresql://postgres@127.0.0.1:{ports[0]}/postgres"

    async def options_of(query: str) -> list[int]:
        target = dsn.from_django(database(f"{at}?{query}"))
        connection = await connecting.connect(target, limit_s=5)
        try:
            link = connection._transport.get_extra_info("socket")
            return [
                link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            ]
        finally:
            await connection.close()

    assert (await options_of(""))[0] == 1
    assert await options_of("keepalives_idle=17&tcp_user_timeout=4000") == [1, 17, 4000]
    assert (await options_of("keepalives=0"))[0] == 0


async def test_the_hot_path_moves_to_the_next_host_when_the_first_dies(servers, ports):
    """The recommended pool, while one server ends and another is writable."""
    spare = PrivatePostgres(listen_addresses="127.0.0.1", port=free_port())
    try:
        spare.start()
        at = f"postgresql://postgres@127.0.0.1:{spare.port},127.0.0.1:{ports[0]}/postgres"
        asked = database(f"{at}?target_session_attrs=read-write")
        async with Database.open(conf.parse({}), asked, strict=True) as opened:
            assert opened.address == at
            where = text("SELECT inet_server_port()")
            assert await opened.read(where) == [(spare.port,)]
            spare.stop_at_once()
            await until(lambda: not opened.pool.open, "the pool has noticed")
            assert await opened.read(where) == [(ports[0],)]
    finally:
        spare.remove()
