"""What tests of the transport share: a plain reply, TLS, and one POST."""

from __future__ import annotations

import ssl

import httpx

from tests.support.provider import Provider, says

OK = says(200, b"ok")


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
