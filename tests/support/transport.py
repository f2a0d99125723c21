"""What tests of the transport share: a plain reply, one that is written by hand, TLS, one POST."""

from __future__ import annotations

import asyncio
import ssl

import httpx

from tests.support.provider import Provider, says

OK = says(200, b"ok")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def ask(transport, url, **headers):
    return await transport.handle_async_request(httpx.Request("POST", url, headers=headers))


def writes(*parts):
    """Each part is one write; an event among them is waited for."""

    async def behave(exchange):
        for part in parts:
            if isinstance(part, asyncio.Event):
                await part.wait()
            else:
                await exchange.send(part)

    return behave


async def post(transport, url, *, content=b"{}", **headers):
    request = httpx.Request("POST", url, headers=headers, content=content)
    response = await transport.handle_async_request(request)
    body = b"".join([chunk async for chunk in response.stream])
    await response.stream.aclose()
    return response, body


def tls_of(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def serving(authority):
    return Provider(OK).serve(ssl=tls_of(authority))
