"""A real local server that speaks Anthropic's Messages, and waits when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json


class FakeLLM:
    """Counts who waits in it; answers at once, or when `release` is set."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.release.set()
        self.text = "The sky scatters blue light."
        self.calls = 0
        self.waiting = 0
        self.peak_waiting = 0
        self.hung_up = 0  # calls whose caller closed the connection before the answer
        self.bodies: list[dict] = []
        self.changed = asyncio.Condition()
        self._tasks: set[asyncio.Task] = set()

    @contextlib.asynccontextmanager
    async def serve(self):
        server = await asyncio.start_server(self._serve_connection, "127.0.0.1", 0, backlog=8192)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self.release.set()
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, predicate, what: str, seconds: float = 30) -> None:
        """Wait for a state of this server; say which was missed."""
        try:
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(lambda: predicate(self))
        except TimeoutError:
            raise AssertionError(
                f"waited {seconds} s for {what}; calls={self.calls} waiting={self.waiting}"
                f" hung_up={self.hung_up}"
            ) from None

    async def _serve_connection(self, reader, writer) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while await self._serve_call(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    async def _serve_call(self, reader, writer) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
        self.bodies.append(json.loads(await reader.readexactly(length)))
        self.calls += 1
        await self._count(+1)
        released = asyncio.ensure_future(self.release.wait())
        left = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait([released, left], return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                self.hung_up += 1
                return False
        finally:
            for future in (released, left):
                future.cancel()
            await asyncio.gather(released, left, return_exceptions=True)
            await self._count(-1)
        body = json.dumps(
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "claude-test",
                "content": [{"type": "text", "text": self.text}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 11, "output_tokens": 7},
            }
        ).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        return True

    async def _count(self, change: int) -> None:
        async with self.changed:
            self.waiting += change
            self.peak_waiting = max(self.peak_waiting, self.waiting)
            self.changed.notify_all()
