"""The service, but that it remembers API keys for KEPT_S seconds only: no test waits for 30."""

import os
from functools import partial

from project.asgi import application  # isort: skip  # sets Django up


from generation.api_keys.cache import ApiKeyCache
from generation.runtime import process

KEPT_S = float(os.environ["KEPT_S"])
hasty = partial(ApiKeyCache, kept_s=KEPT_S, refresh_s=KEPT_S * 2 / 3)
vars(process)["ApiKeyCache"] = hasty

__all__ = ["application"]
