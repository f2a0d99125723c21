"""The processes of one deployment on one host: how they exchange their figures, and find a
generation that runs in another of them.

With several workers, a request for `/metrics` reaches one of them, but the caller wants the
figures of all. Workers therefore answer each other on Unix sockets in a private folder that they
share, when somebody asks: none of this is on a request's path.

A counter must not fall when a worker ends. So each worker also publishes its metrics in a file
of that folder, and those of workers that have ended are summed in the file `retired.json`. That
sum outlives the last worker for a minute, because a supervisor may replace all workers at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import math
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar
from uuid import UUID, uuid4

import orjson

from generation.telemetry import private_folder, totals
from generation.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from generation.records import UserKey
    from generation.telemetry.history import Points
    from generation.telemetry.totals import Families

Figures = TypeVar("Figures")

logger = logging.getLogger(__name__)

ASK_LIMIT_S = 0.5  # a frozen process must not freeze everybody's page
PATH_LIMIT_BYTES = 103  # of a socket's path: the strictest kernel's limit, less the final NUL
BACKLOG = 64
KEPT_ALONE_S = 60.0  # the sum of the retired, while no worker lives
ACCEPT_AGAIN_S = 1.0  # after a failed accept, e.g. when no file descriptor is left
_SOCKET, _PUBLISHED = ".sock", ".json"
_RETIRED = "retired"
_POOL, _METRICS, _HISTORY = b"p", b"m", b"h"  # what to ask for: a single byte can't arrive in parts
_FIND, _CANCEL = b"f", b"c"  # a generation, whose id follows
_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Answer(Generic[Figures]):
    name: str
    figures: Figures | None  # None: no answer in time

    @property
    def process(self) -> int:
        return int(self.name.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Running:
    """A generation of a process, as another one sees it."""

    user_id: UserKey | None
    model: str
    has_content: bool
    is_background: bool


class Siblings:
    """This process among the others of its deployment.

    `deployment` separates it from other deployments of the same account: processes that give the
    same text belong together.
    """

    def __init__(
        self,
        deployment: str,
        snapshot: Callable[[], Snapshot],
        gather_metrics: Callable[[], Families] = totals.gather,
        look: Callable[[UUID, bool], Running | None] = lambda _id, _ends: None,
        history: Callable[[], Points] = list,
    ) -> None:
        """`look` describes one of our generations; if its second argument is true, it ends it."""
        digest = hashlib.sha256(deployment.encode()).hexdigest()[:12]
        self._folder_name = f"staccato-workers-{os.geteuid()}-{digest}"
        self._name = f"{os.getpid()}-{uuid4().hex[:6]}"
        self._snapshot = snapshot
        self._gather_metrics = gather_metrics
        self._look = look
        self._history = history
        self._publish_lock = asyncio.Lock()  # files are written in the order of their figures
        self._is_registered = False
        self._listen_again: asyncio.TimerHandle | None = None
        self._answering: set[asyncio.Task[None]] = set()

    @cached_property
    def _folder(self) -> Path:
        """Raises `OSError` where no folder for temporary files is writable."""
        return Path(tempfile.gettempdir()) / self._folder_name

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer the siblings until the block ends.

        Where the folder can't be used, the process reports itself alone, and the log says why.
        """
        try:
            listening = await asyncio.to_thread(self._enter)
        except OSError as error:
            logger.warning("metrics and the pool's page show this process only: %s", error)
            yield
            return
        with listening:
            self._listen(listening)
            self._is_registered = True
            try:
                yield
            finally:
                await self._publish()
                self._is_registered = False
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(self._leave)
                if self._listen_again is not None:
                    self._listen_again.cancel()
                asyncio.get_running_loop().remove_reader(listening)
                await asyncio.gather(*self._answering)

    async def snapshots(self) -> dict[int, Snapshot | None]:
        """Returns each living process's figures, this one's first; None: no answer in time."""
        answers = await self._ask_others(_POOL, Snapshot.parse)
        return {os.getpid(): self._snapshot()} | _by_process(answers)

    async def histories(self) -> list[Points]:
        """Returns what each process that answers had in flight, second by second."""
        answers: list[Answer[Points]] = await self._ask_others(_HISTORY, orjson.loads)
        return [self._history(), *(each.figures for each in answers if each.figures is not None)]

    async def metrics(self) -> tuple[dict[int, Families | None], Families | None]:
        """Returns each living process's metrics, and the published ones of all that don't answer.

        The latter is None where this process has been the only one so far.
        """
        answers: list[Answer[Families]] = await self._ask_others(_METRICS, orjson.loads)
        own = await self._publish()
        by_process = {os.getpid(): own} | _by_process(answers)
        if self._is_alone():
            return by_process, None
        answered = {answer.name for answer in answers if answer.figures is not None}
        return by_process, await asyncio.to_thread(
            self._read_published, without={self._name, *answered}
        )

    async def find(self, generation_id: UUID, *, cancel: bool = False) -> Running | None:
        """Returns a generation that runs in another process; if `cancel`, ends it there."""
        question = (_CANCEL if cancel else _FIND) + generation_id.bytes
        answers = await self._ask_others(question, _parse_running)
        return next((answer.figures for answer in answers if answer.figures), None)

    async def _publish(self) -> Families:
        """Returns this process's metrics; writes them to its file, where it has had siblings."""
        if self._is_alone():
            return self._gather_metrics()
        async with self._publish_lock:
            metrics = self._gather_metrics()
            try:
                await asyncio.to_thread(private_folder.write, self._path(_PUBLISHED), metrics)
            except OSError as error:
                logger.warning("the metrics can't be written for the other processes: %s", error)
            return metrics

    # --- the folder -------------------------------------------------------------------------

    def _is_alone(self) -> bool:
        """Whether no other process is in the folder, nor has been since it was made."""
        own = {self._name, private_folder.LOCK}
        return not self._is_registered or {path.stem for path in self._folder.glob("*")} <= own

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._name}{suffix}"

    @property
    def _path_of_retired(self) -> Path:
        return self._folder / f"{_RETIRED}{_PUBLISHED}"

    def _enter(self) -> socket.socket:
        """Returns this process's listening socket. Raises `OSError` if the folder is no use."""
        path = self._path(_SOCKET)
        if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
            raise OSError(errno.ENAMETOOLONG, f"{path} is too long for a socket's path")
        with private_folder.locked(self._folder):
            self._retire_the_dead()
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # Rename only once it listens: a socket that refuses is taken for a dead process's.
                draft = self._path(private_folder.DRAFT)
                listening.bind(str(draft))
                listening.listen(BACKLOG)
                listening.settimeout(0)
                draft.rename(path)
            except BaseException:
                listening.close()
                raise
        return listening

    def _leave(self) -> None:
        with private_folder.locked(self._folder):
            _remove(self._path(_SOCKET))
            if any(map(_is_listening, _sockets(self._folder))):
                if not self._path(_PUBLISHED).exists():  # the first sibling came a moment ago
                    private_folder.write(self._path(_PUBLISHED), self._gather_metrics())
                return
            self._retire_the_dead()
            if not self._path_of_retired.exists():  # it was alone all the time
                for path in self._folder.iterdir():
                    _remove(path)
                self._folder.rmdir()

    def _retire_the_dead(self) -> None:
        """Sum what dead processes published; forget it if none has lived for `KEPT_ALONE_S`."""
        living = {path.stem for path in _sockets(self._folder) if _is_listening(path)}
        kept = {*living, _RETIRED, private_folder.LOCK}
        dead = [path for path in self._folder.iterdir() if path.stem not in kept]
        published = {
            path.stem: private_folder.read(path) for path in dead if path.suffix == _PUBLISHED
        }
        retired = self._path_of_retired
        if not living and _age_s([retired, *dead]) > KEPT_ALONE_S:
            _remove(retired)
        elif published:
            before = private_folder.read(retired) or {"families": []}
            families = totals.sum_cumulative(
                [before["families"], *filter(None, published.values())]
            )
            # With names, since a reader may have read both the sum and a file that went into it.
            private_folder.write(retired, {"families": families, "of": list(published)})
        for path in dead:
            _remove(path)

    def _read_published(self, *, without: set[str]) -> Families:
        """Returns the sum of all published metrics, except those of the named processes."""
        published = {
            path.stem: private_folder.read(path)
            for path in self._folder.glob(f"*{_PUBLISHED}")
            if path.stem not in {*without, _RETIRED}
        }
        # Read the sum after the files: it holds those that have been removed by now.
        retired = private_folder.read(self._path_of_retired) or {"families": [], "of": []}
        parts = [part for name, part in published.items() if part and name not in retired["of"]]
        return totals.sum_cumulative([retired["families"], *parts])

    # --- the sockets ------------------------------------------------------------------------

    # With asyncio's own server, or a task that accepts, a connection that arrives while it closes
    # is lost.

    def _listen(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            asking, _address = listening.accept()
        except BlockingIOError:  # the sibling that asked has left
            return
        except OSError as error:
            logger.warning("the other processes can't be answered: %s", error)
            loop.remove_reader(listening)
            self._listen_again = loop.call_later(ACCEPT_AGAIN_S, self._listen, listening)
            return
        asking.settimeout(0)
        task = loop.create_task(self._answer(asking))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, asking: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with asking:
            try:
                async with asyncio.timeout(ASK_LIMIT_S):
                    topic = await loop.sock_recv(asking, 1)
                    if topic == _POOL:
                        await loop.sock_sendall(asking, orjson.dumps(self._snapshot()))
                    elif topic == _HISTORY:
                        await loop.sock_sendall(asking, orjson.dumps(self._history()))
                    elif topic == _METRICS:
                        await loop.sock_sendall(asking, orjson.dumps(await self._publish()))
                    elif topic in {_FIND, _CANCEL}:
                        given = await loop.sock_recv(asking, _ID_BYTES)  # one write, so one read
                        found = self._look(UUID(bytes=given), topic == _CANCEL)
                        await loop.sock_sendall(asking, orjson.dumps(found))
            except OSError:  # the sibling that asked has left, or is slow
                pass
            except Exception:
                logger.exception("a bug kept this process from answering another")

    async def _ask_others(
        self, topic: bytes, parse: Callable[[bytes], Figures]
    ) -> list[Answer[Figures]]:
        found = _sockets(self._folder) if self._is_registered else []
        others = sorted(path for path in found if path != self._path(_SOCKET))
        answers = await asyncio.gather(*(_ask(path, topic, parse) for path in others))
        return [answer for answer in answers if answer is not None]


async def _ask(
    path: Path, topic: bytes, parse: Callable[[bytes], Figures]
) -> Answer[Figures] | None:
    """Returns None for a process that has ended."""
    try:
        async with asyncio.timeout(ASK_LIMIT_S):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(topic)
                return Answer(path.stem, parse(await reader.read()))
            finally:
                writer.transport.abort()
    except ConnectionRefusedError:  # only the socket of a dead process refuses
        _remove(path)
        return None
    except (OSError, ValueError):
        return Answer(path.stem, None) if path in _sockets(path.parent) else None


def _parse_running(document: bytes) -> Running | None:
    found = orjson.loads(document)
    return None if found is None else Running(**found)


def _by_process(answers: Iterable[Answer[Figures]]) -> dict[int, Figures | None]:
    return {answer.process: answer.figures for answer in answers}


def _sockets(folder: Path) -> list[Path]:
    return list(folder.glob(f"*{_SOCKET}"))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _age_s(paths: Iterable[Path]) -> float:
    """Returns how long ago the newest of these files was written; infinity if there is none."""
    written = (path.stat().st_mtime for path in paths if path.exists())
    return time.time() - max(written, default=-math.inf)


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(0)
        try:
            asking.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its queue is full
            return True
    return True
