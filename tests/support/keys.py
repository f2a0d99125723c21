"""API keys as their owners hold them."""

from __future__ import annotations

import io

from asgiref.sync import sync_to_async
from django.core.management import call_command

from generation import conf
from generation.api_keys import tokens
from generation.api_keys.cache import ApiKeyCache
from generation.models import ApiKey
from generation.runtime.process import Runtime


def make_key(users=(), **values) -> str:
    """A service's key for everybody, unless the values say otherwise."""
    new = tokens.make(conf.load().pepper)
    row = {"name": "a test's", "scope": ApiKey.Scope.ALL, **values}
    key = ApiKey.objects.create(prefix=new.prefix, digest=new.digest, **row)
    key.users.set(users)
    return new.text


async def amake_key(users=(), **values) -> str:
    return await sync_to_async(make_key)(users, **values)


def rows_of(key: str):
    return ApiKey.objects.filter(prefix=tokens.parse_prefix(key))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def cache_of(runtime: Runtime, **values) -> ApiKeyCache:
    """What another process on the same database would remember of keys."""
    values = {"read_limits": runtime.limits.refresh, **values}
    return ApiKeyCache(runtime.database, runtime.store.api_keys, runtime.settings.pepper, **values)


class Clock:
    """Stands still unless told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("apikey", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()
