"""The service, but that at /soak it frees what it can and says how many asyncio tasks it has."""

import asyncio
import ctypes
import gc
import json

from project.asgi import application as service


async def application(scope, receive, send):
    if scope.get("path") != "/soak":
        return await service(scope, receive, send)
    gc.collect()  # it runs rarely: between two runs some 20 MB wait for it
    # What the allocator keeps for later is no leak. Only glibc has the function.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    body = json.dumps({"tasks": len(asyncio.all_tasks())}).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return None
