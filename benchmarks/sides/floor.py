"""(a) The floor: uvicorn and the LLM call, nothing else. No framework, no checks, no database.

A stream's bytes go through it as they come: nothing reads them.
"""

from __future__ import annotations

import os

import httpx
import orjson

from generation.llm.transport import Transport

URL = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
HEADERS = {
    "x-api-key": "k",
    "anthropic-version": "2023-06-01",
    "content-type": "application/json",
}
PROMPT = "Tell a curious beginner something worth knowing about connection pools."


class Floor:
    transport: Transport

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
        request = httpx.Request(
            "POST", URL, headers=HEADERS, stream=httpx.ByteStream(orjson.dumps(content))
        )
        return await self.transport.handle_async_request(request)

    async def answer(self, content, send):
        response = await self.ask(content)
        reply = bytearray()
        async for chunk in response.stream:
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
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )
        await send({"type": "http.response.body", "body": answer})

    async def relay(self, content, send):
        response = await self.ask(content)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )
        async for chunk in response.stream:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def live(self, receive, send):
        await receive()
        self.transport = Transport(connect_timeout=5)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.transport.aclose()
        await send({"type": "lifespan.shutdown.complete"})


application = Floor()
