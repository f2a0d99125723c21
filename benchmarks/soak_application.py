"""The service, but that it says at /soak how many asyncio tasks it has."""

import asyncio
import json

from project.asgi import application as service


async def application(scope, receive, send):
    if scope.get("path") != "/soak":
        return await service(scope, receive, send)
    body = json.dumps({"tasks": len(asyncio.all_tasks())}).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return None
