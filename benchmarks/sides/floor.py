"""(a) The floor: uvicorn and the LLM call, nothing else. No framework, no checks, no database.

A stream's bytes go through it as they come: nothing reads them.
"""

from __future__ import annotations

import os

import httpx
import orjson
import pyqwest

from generation.llm.transport.streaming import StreamingTransport

URL = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
HEADERS = {
    "x-api-key": "k",
    "anthropic-version": "2023-06-01",
    "content-type": "application/json",
}
PROMPT = "Tell a curious beginner something worth knowing about connection pools."


class Floor:
    pool: pyqwest.HTTPTransport
    streams: StreamingTransport

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        body = (await receive())["body"]
        asked = orjson.loads(body) if body else {}
        prompt = f"{PROMPT}\n\n{asked.get('input', '')}"
        content = {
            "model": "claude-sonnet-5-5",
            "max_tokens": 1024,
            "messages": [{"role": "user", "content": prompt}],
        }
        if asked.get("stream"):
            await self.relay(content | {"stream": True}, send)
        else:
            await self.answer(content, send)

    async def ask(self, content):
        return await self.pool.execute(
            pyqwest.Request("POST", URL, pyqwest.Headers(HEADERS), orjson.dumps(content))
        )

    async def answer(self, content, send):
        response = await self.ask(content)
        reply = bytearray()
        async for chunk in response.content:
            reply += chunk
        data = orjson.loads(bytes(reply))
        usage = data["usage"]
        answer = orjson.dumps(
            {
                "result": data["content"][0]["text"],
                "tokens": usage["input_tokens"] + usage["output_tokens"],
            }
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def relay(self, content, send):
        request = httpx.Request("POST", URL, headers=HEADERS, content=orjson.dumps(content))
        response = await self.streams.handle_async_request(request)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )
        async for chunk in response.stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def live(self, receive, send):
        await receive()
        self.pool = pyqwest.HTTPTransport(
            http_version=pyqwest.HTTPVersion.HTTP1,
            pool_max_idle_per_host=10_000,
            follow_redirects=False,
            enable_otel=False,
        )
        self.streams = StreamingTransport(connect_timeout=5)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.pool.aclose()
        await self.streams.aclose()
        await send({"type": "lifespan.shutdown.complete"})


application = Floor()
