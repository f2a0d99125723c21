"""A reply while it comes: parsed, and handed on in the step of the loop that has read it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import httptools
import httpx

from generation.llm.transport.body import Body

if TYPE_CHECKING:
    from collections.abc import Callable

    from generation.llm.transport.connection import Connection

_MAX_HEADERS = 100
# In a row, of which nothing is the body's: heads, sizes of chunks and their extensions, trailers.
_MAX_FRAMING_BYTES = 65_536
_FIRST_FINAL_STATUS = 200  # those below announce another
_TURN_BYTES = 65_536  # after which all others have their turn of the loop


class Reply(Body):
    """Belongs to one request. What nobody takes is not read, but for what one read has brought."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0  # until the head has come
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_begun = False  # a byte has come
        self._connection: Connection | None = connection  # None: nothing more comes
        self._is_whole = False
        self._keeps_alive = False
        self._fault: tuple[type[httpx.TransportError], str] | None = None
        self._framing_bytes = 0
        self._pieces: list[bytes] = []  # of the body, not taken yet
        self._take: Callable[[bytes], object] | None = None
        self._news: asyncio.Future[bool] | None = None  # while somebody waits
        self._context: contextvars.Context | None = None
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # What is no danger to a client that uses a connection for one reply at a time, and what
        # servers do send: lines without CR, both kinds of length, sizes with spaces.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True,
            lenient_chunked_length=True,
            lenient_spaces_after_chunk_size=True,
        )

    # --- what the parser calls ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise ValueError("more came than one reply")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer
        if len(self.headers) == _MAX_HEADERS:
            raise ValueError("too many headers")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None, "a reply that has ended is fed no more"
        status = self._parser.get_status_code()
        if status >= _FIRST_FINAL_STATUS:
            self.status = status

    def on_message_complete(self) -> None:
        if not self.status:
            self.headers.clear()
            return
        assert self._parser is not None, "a reply that has ended is fed no more"
        self._is_whole = True
        self._keeps_alive = self._parser.should_keep_alive()

    # --- what the connection calls ------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self.has_begun = True
        fault = ""
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]  # there is one until the end
        except httptools.HttpParserUpgrade:
            fault = "the server changes the protocol"
        except httptools.HttpParserError as error:
            self._keeps_alive = False
            fault = str(error.__context__ or error)  # ours is the context of its own
        if self._pieces:
            self._framing_bytes = 0
            if self._take is not None:
                self._hand_on()
        else:
            self._framing_bytes += len(data)
            if self._framing_bytes > _MAX_FRAMING_BYTES:
                fault = fault or f"more than {_MAX_FRAMING_BYTES} bytes are not the body's"
        if self._is_whole:
            self._end(keeps_alive=self._keeps_alive)
        elif fault:
            self.fail(httpx.RemoteProtocolError, f"the reply can't be read: {fault}")
        elif self._take is None and self.status:
            self._connection.pause_reading()  # type: ignore[union-attr]  # there is one
            self._wake(has_ended=False)
        elif len(data) >= _TURN_BYTES:  # uvloop reads on, 32 times in a turn
            self._connection.pause_reading()  # type: ignore[union-attr]  # there is one
            asyncio.get_running_loop().call_soon(self._read_on)

    def end_of_file(self, *, is_certain: bool) -> None:
        """The other side sends no more; `is_certain` that nobody has cut it off on its way."""
        if not self.has_begun:
            self.fail(httpx.RemoteProtocolError, "the connection was closed before a reply came")
        elif self.status and is_certain and self._lasts_until_closed():
            self._end(keeps_alive=False)
        else:
            self.fail(httpx.RemoteProtocolError, "the connection was closed within the reply")

    def fail(self, kind: type[httpx.TransportError], text: str) -> None:
        if self._connection is not None:
            self._fault = kind, text
            self._end(keeps_alive=False)

    # --- what the one who asked calls ---------------------------------------------------------

    async def head(self) -> None:
        """Wait for status and headers. Raises `httpx.TransportError`."""
        try:
            while not self.status and self._connection is not None:
                await self._wait()
            if self._fault is not None and not self.status:
                self._raise_fault()
        except BaseException:
            await self.aclose()
            raise

    async def pour(self, take: Callable[[bytes], object]) -> bool:
        if self._pieces and not take(self._collect()):
            return False
        if self._connection is not None:
            self._take = take
            self._context = contextvars.copy_context()
            self._connection.resume_reading()
            if not await self._wait():
                return False
        if self._fault is not None:
            self._raise_fault()
        return True

    @property
    def has_ended(self) -> bool:  # type: ignore[override]  # nobody sets it
        return self._is_whole and not self._pieces

    async def aclose(self) -> None:
        """Of a reply that is not whole, closes the connection. One who reads on gets an error."""
        self.fail(httpx.ReadError, "the reply was closed before its end")

    # --- within -------------------------------------------------------------------------------

    def _collect(self) -> bytes:
        data = b"".join(self._pieces)  # one piece is not copied
        self._pieces.clear()
        return data

    def _hand_on(self) -> None:
        """In the context of the one who waits: our own is that of the connection."""
        try:
            has_room = self._context.run(self._take, self._collect())  # type: ignore[union-attr,arg-type]  # they come together
        except Exception as error:  # noqa: BLE001  # of the one who waits
            self._take = None
            if self._news is not None and not self._news.done():
                self._news.set_exception(error)
        else:
            if not has_room:
                self._take = None
                self._wake(has_ended=False)

    def _read_on(self) -> None:
        if self._take is not None and self._connection is not None:
            self._connection.resume_reading()

    async def _wait(self) -> bool:
        """Returns whether the reply has ended."""
        self._news = asyncio.get_running_loop().create_future()
        try:
            return await self._news
        finally:
            self._news = self._take = self._context = None

    def _wake(self, *, has_ended: bool) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(has_ended)

    def _end(self, *, keeps_alive: bool) -> None:
        """Let go of the connection, and of the parser, which refers to us."""
        connection, self._connection, self._parser = self._connection, None, None
        if connection is not None:
            connection.end_reply(may_stay=keeps_alive)
        self._wake(has_ended=True)

    def _raise_fault(self) -> None:
        assert self._fault is not None, "only what has failed is raised"
        kind, text = self._fault
        raise kind(text)

    def _lasts_until_closed(self) -> bool:
        """Whether its head says nothing of where the body ends."""
        codings = [value for name, value in self.headers if name.lower() == b"transfer-encoding"]
        if codings:
            return not codings[-1].lower().rstrip().endswith(b"chunked")
        return all(name.lower() != b"content-length" for name, _ in self.headers)
