"""The processes of one deployment on one host, and what they tell each other.

Whoever asks a service of several workers for its pool or its metrics gets one of them, and means
all. So each process answers the others on a socket in a folder that they share. Figures are
counted in the process and gathered when asked for: nothing of this is on a request's path.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import orjson

from generation.telemetry import totals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from generation.telemetry.totals import Families

    Topic = Literal["pool", "metrics"]

logger = logging.getLogger(__name__)

ASK_LIMIT_S = 0.5  # a process that is frozen must not freeze everybody's page
PATH_LIMIT = 103  # bytes of a socket's path: the tightest kernel's, less its NUL
BACKLOG = 64
ACCEPT_AGAIN_S = 1.0  # when the process has no file descriptor left, say
# In the folder: a process's socket, what it last told of its metrics, and the sum of those of
# processes that have ended.
_SOCKET, _TOLD, _DRAFT = ".sock", ".json", ".draft"
_DEPARTED = "departed"
_LOCK = "lock"
_TOPICS: dict[bytes, Topic] = {b"p": "pool", b"m": "metrics"}  # one byte can't come in halves


@dataclass(frozen=True, slots=True)
class Answer:
    name: str
    figures: Any  # None: no answer in time

    @property
    def process(self) -> int:
        return int(self.name.partition("-")[0])


class Processes:
    """This process among its siblings.

    `deployment` tells it from others of the same account: processes with the same words belong
    together.
    """

    def __init__(self, deployment: str, figures: Mapping[Topic, Callable[[], Any]]) -> None:
        digest = hashlib.sha256(deployment.encode()).hexdigest()[:12]
        self._folder = Path(tempfile.gettempdir()) / f"staccato-workers-{os.geteuid()}-{digest}"
        self._name = f"{os.getpid()}-{uuid4().hex[:6]}"
        self._figures = figures
        self._telling = asyncio.Lock()  # what is put down is in the order of what was told
        self._is_known = False
        self._listen_again: asyncio.TimerHandle | None = None
        self._answering: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer the siblings until the block ends.

        Where that can't be, the process speaks for itself alone, and the log says why.
        """
        try:
            listening = await asyncio.to_thread(self._enter)
        except OSError as error:
            logger.warning("metrics and the pool's page tell of one process only: %s", error)
            yield
            return
        with listening:
            self._listen(listening)
            self._is_known = True
            try:
                yield
            finally:
                await self.tell("metrics")
                self._is_known = False
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(self._leave)
                if self._listen_again is not None:
                    self._listen_again.cancel()
                asyncio.get_running_loop().remove_reader(listening)
                await asyncio.gather(*self._answering)

    async def tell(self, topic: Topic) -> Any:
        """The figures of this process. Those of the metrics are put down as well, where others
        are there to go on counting when this one is lost."""
        if topic != "metrics" or self._is_alone():
            return self._figures[topic]()
        async with self._telling:
            figures = self._figures[topic]()
            try:
                await asyncio.to_thread(_write, self._path(_TOLD), figures)
            except OSError as error:
                logger.warning("metrics could not be put down: %s", error)
            return figures

    async def ask(self, topic: Topic) -> list[Answer]:
        """What all living processes tell, this one first."""
        found = _sockets(self._folder) if self._is_known else []
        siblings = sorted(path for path in found if path != self._path(_SOCKET))
        others = await asyncio.gather(*(_ask(path, topic) for path in siblings)) if siblings else ()
        return [Answer(self._name, await self.tell(topic)), *filter(None, others)]

    async def recall(self, answers: list[Answer]) -> Families | None:
        """What is put down of the metrics of those who did not answer, or will not any more.

        None where this process has been the only one ever.
        """
        if self._is_alone():
            return None
        answered = {answer.name for answer in answers if answer.figures is not None}
        return await asyncio.to_thread(self._read_told, answered)

    # --- the folder -------------------------------------------------------------------------

    def _is_alone(self) -> bool:
        """Whether nobody else is there, nor has been since the folder was cleared."""
        own = {self._name, _LOCK}
        return not self._is_known or {path.stem for path in self._folder.glob("*")} <= own

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._name}{suffix}"

    def _enter(self) -> socket.socket:
        """Raises `OSError` where the folder is not ours, or can't be."""
        path = self._path(_SOCKET)
        if len(os.fsencode(path)) > PATH_LIMIT:
            raise OSError(errno.ENAMETOOLONG, f"{path} is too long for a socket's path")
        with _locked(self._folder):
            self._clear()
            # It gets its name when it listens: one that refuses is taken for a dead process's.
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                draft = self._path(_DRAFT)
                listening.bind(str(draft))
                listening.listen(BACKLOG)
                listening.settimeout(0)
                draft.rename(path)
            except BaseException:
                listening.close()
                raise
        return listening

    def _leave(self) -> None:
        with _locked(self._folder):
            _remove(self._path(_SOCKET))
            if not any(map(_is_listening, _sockets(self._folder))):
                for path in self._folder.iterdir():
                    _remove(path)
                self._folder.rmdir()

    def _clear(self) -> None:
        """Sum up what the departed have told; forget it where nobody is left to go on counting."""
        living = {path.stem for path in _sockets(self._folder) if _is_listening(path)}
        kept = {*living, _DEPARTED, _LOCK}
        dead = [path for path in self._folder.iterdir() if path.stem not in kept]
        told = {path.stem: _read(path) for path in dead if path.suffix == _TOLD}
        summed = self._folder / f"{_DEPARTED}{_TOLD}"
        if not living:
            _remove(summed)
        elif told:
            before = _read(summed) or {"families": []}
            families = totals.sum_cumulative(
                [before["families"], *(part for part in told.values() if part)]
            )
            # Names, since a page may be reading both the sum and what went into it.
            _write(summed, {"families": families, "of": list(told)})
        for path in dead:
            _remove(path)

    def _read_told(self, answered: set[str]) -> Families:
        singly = {
            path.stem: _read(path)
            for path in self._folder.glob(f"*{_TOLD}")
            if path.stem not in {*answered, _DEPARTED}
        }
        # Read after them: what is gone by now is in it.
        summed = _read(self._folder / f"{_DEPARTED}{_TOLD}") or {"families": [], "of": []}
        parts = [part for name, part in singly.items() if part and name not in summed["of"]]
        return totals.sum_cumulative([summed["families"], *parts])

    # --- the sockets ------------------------------------------------------------------------

    # asyncio's own server, or a task that accepts, loses a connection that comes as it is closed.

    def _listen(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            asking, _address = listening.accept()
        except BlockingIOError:  # who asked has left
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
                    topic = _TOPICS.get(await loop.sock_recv(asking, 1))
                    if topic:
                        await loop.sock_sendall(asking, orjson.dumps(await self.tell(topic)))
            except OSError:  # who asked has left, or is slow
                pass
            except Exception:
                logger.exception("a bug kept this process from answering another")


async def _ask(path: Path, topic: Topic) -> Answer | None:
    """None for a process that is no more."""
    try:
        async with asyncio.timeout(ASK_LIMIT_S):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(topic[:1].encode())
                return Answer(path.stem, orjson.loads(await reader.read()))
            finally:
                writer.transport.abort()
    except ConnectionRefusedError:  # a socket file outlives its process; nothing else refuses
        _remove(path)
        return None
    except (OSError, ValueError):
        return Answer(path.stem, None) if path in _sockets(path.parent) else None


def _sockets(folder: Path) -> list[Path]:
    return list(folder.glob(f"*{_SOCKET}"))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


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


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder for one process at a time. Raises `OSError` where it is not ours, or can't be."""
    path = folder / _LOCK
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Who left last has taken the folder away, maybe while we waited.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                yield
                return
        finally:
            os.close(descriptor)


def _check_private(folder: Path) -> None:
    """Where everybody may make folders, anybody may have been first. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{folder} is not a private folder of this account")


def _write(path: Path, content: Any) -> None:
    draft = path.with_suffix(_DRAFT)
    draft.write_bytes(orjson.dumps(content))
    draft.rename(path)


def _read(path: Path) -> Any:
    """None where it is gone, or was never finished."""
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
