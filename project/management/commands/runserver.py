"""`manage.py runserver`: Django's command, with uvicorn as the server."""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import os
import socket
import sys
import threading
import time
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import django
import uvicorn
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import check_password
from django.contrib.staticfiles.management.commands import runserver
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, OperationalError, connection, connections

from generation import conf
from generation.llm.providers.registry import default_provider
from project import embedded_postgres
from project.reloading import Reloader, end_with_parent

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper

# For requests in flight when the code changes or on Ctrl-C; then they are cut off.
GRACE_S = 10
ANNOUNCE_POLL_S = 0.2
BACKLOG = 2048
ADMIN = "admin"
ANY_IPV4 = "0.0.0.0"  # noqa: S104  # compared with, not listened on by default
WITHOUT_EFFECT = {
    "use_threading": "one event loop serves all requests",
    "use_static_handler": "middleware serves static files, from their sources while DEBUG is on",
    "insecure_serving": "without DEBUG, middleware serves what collectstatic collected",
}


class Command(runserver.Command):
    addr: str
    port: str
    use_ipv6: bool
    help = "Serve the ASGI application with uvicorn, and restart it when the code changes."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--stop-with-parent",
            action="store_true",
            help="Stop when the parent process has ended, however it ended.",
        )
        for action in parser._actions:  # noqa: SLF001  # argparse has no public way to them
            if action.dest in WITHOUT_EFFECT:
                action.help = f"No effect: {WITHOUT_EFFECT[action.dest]}."

    def run(self, **options: Any) -> None:
        # If the code is broken at first, Django's own reloader starts us later.
        if options["stop_with_parent"] or os.environ.get("RUN_MAIN") == "true":
            end_with_parent()
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs each .pyc
        self.refuse_other_machines()
        listener = self.listen()
        config = uvicorn.Config(
            "project.asgi:application",
            host=self.addr,
            port=int(self.port),
            log_config=None,  # settings.LOGGING
            lifespan="on",
            ws="none",
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACE_S,
            reload=options["use_reloader"],
            **(watched() if options["use_reloader"] else {}),
        )
        if not options["use_reloader"]:
            self.inspect(options["skip_checks"])
            threading.Thread(target=self.announce, name="announce", daemon=True).start()
            serve(config, [listener])
            return
        child = partial(inspect_and_serve, config, options["skip_checks"])
        reloader = Reloader(config, child, [listener], self.run_beside)
        reloader.run()
        if reloader.killed_by:
            raise CommandError(
                f"the server was killed by {reloader.killed_by.name}, not by this command;"
                " run it again"
            )

    def refuse_other_machines(self) -> None:
        """With DEBUG on, anybody who reaches the server can spend money and read tracebacks."""
        if settings.DEBUG and not conf.load().keys_required and not is_loopback(self.addr):
            raise CommandError(
                f"other machines may reach {self.addr}, and with DEBUG on, requests need no API"
                " key: set STACCATO_API_KEYS_REQUIRED=1, or serve on 127.0.0.1"
            )

    def listen(self) -> socket.socket:
        family = socket.AF_INET6 if self.use_ipv6 else socket.AF_INET
        try:
            return socket.create_server((self.addr, int(self.port)), family=family, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            reason = str(error)
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                reason = (
                    "another process listens there; stop it or choose another port:"
                    f" `manage.py runserver {int(self.port) + 1}`, `make run PORT=…`"
                )
            raise CommandError(f"can't listen on {self.url}: {reason}") from None

    def run_beside(self) -> None:
        """In the parent process: keep PostgreSQL running through restarts of the server."""
        for alias in connections:
            if place := connections.settings[alias].get("SERVER"):
                # If this fails, it fails in the child too, which reports it.
                with contextlib.suppress(embedded_postgres.EmbeddedPostgresError):
                    embedded_postgres.hold(**place)
        self.announce()

    def inspect(self, skip_checks: bool) -> None:  # noqa: FBT001  # an option's value
        """Run the checks that Django's own command runs before it serves."""
        if not skip_checks:
            self.stdout.write("Performing system checks...\n\n")
            self.check(display_num_errors=True)
        try:
            self.check_migrations()
        except OperationalError as error:  # the service waits for it
            self.stderr.write(f"The database can't be reached: {error}")
        for each in connections.all(initialized_only=True):
            each.close()

    @property
    def url(self) -> str:
        host = {"0": "127.0.0.1", ANY_IPV4: "127.0.0.1", "::": "::1"}.get(self.addr, self.addr)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def announce(self) -> None:
        """Print the addresses once the server answers."""
        while not is_alive(self.url.removeprefix("http://")):
            time.sleep(ANNOUNCE_POLL_S)
        account = f"{ADMIN} / {ADMIN}" if settings.DEBUG and has_demo_admin() else ""
        provider = default_provider(conf.load())
        if provider == "simulated":
            provider += " (for a real one, set ANTHROPIC_API_KEY or OPENAI_API_KEY)"
        keys = "not required, because DEBUG is on: this machine only"
        curl = (
            f"curl -X POST {self.url}/api/v1/generate/1 -H 'content-type: application/json'"
            """ -d '{"input": "Why is the sky blue?"}'"""
        )
        if conf.load().keys_required:
            keys = "required: manage.py apikey create NAME --all-users"
            curl += " -H 'authorization: Bearer stc_…'"
        self.stdout.write(f"""
{self.style.SUCCESS("Staccato is up.")} Stop it with Ctrl-C.

  Start page        {self.url}/
  API docs          {self.url}/api/v1/docs
  Admin             {self.url}/admin/   {account}
  Pool statistics   {self.url}/api/v1/pool
  LLM               {provider}
  API keys          {keys}

  {curl}
""")
        self.stdout.flush()  # a file or a pipe is buffered


def inspect_and_serve(
    config: uvicorn.Config,
    skip_checks: bool,  # noqa: FBT001  # an option's value
    sockets: list[socket.socket] | None,
) -> None:
    """Runs in the reloader's child process."""
    end_with_parent()
    try:
        django.setup()
        Command().inspect(skip_checks)
        serve(config, sockets)
    except CommandError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(0)


def serve(config: uvicorn.Config, sockets: list[socket.socket] | None) -> None:
    try:
        uvicorn.Server(config).run(sockets)
    except KeyboardInterrupt:  # uvicorn raises the signal again
        sys.exit(0)


def watched() -> dict[str, Any]:
    """Returns what the reloader watches: Python and templates of the project's own apps."""
    folders = [
        app.path
        for app in apps.get_app_configs()
        if settings.BASE_DIR in Path(app.path).parents
        and Path(sys.prefix) not in Path(app.path).parents
    ]
    return {"reload_dirs": folders, "reload_includes": ["*.py", "*.html"]}


def is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ip_address(address).is_loopback
    except ValueError:  # another name, or an abbreviation for all addresses
        return False


def has_demo_admin() -> bool:
    """Whether the account of `seed_demo` exists and still has its first password."""
    users = get_user_model()
    try:
        accounts = users._base_manager
        admin = accounts.filter(**{users.USERNAME_FIELD: ADMIN}).first()
        return bool(admin and admin.is_superuser and check_password(ADMIN, admin.password))
    except DatabaseError:  # the table does not exist yet
        return False
    finally:
        connection.close()
        cast("DatabaseWrapper", connection).close_pool()


def is_alive(host: str) -> bool:
    caller = http.client.HTTPConnection(host, timeout=2)
    try:
        caller.request("GET", "/livez")
        return caller.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        caller.close()
