"""The service with times that the environment names, where the product has no setting.

KEPT_S: how long API keys are remembered, since no test waits for half a minute. ASK_LIMIT_S: how
long processes wait for each other, since half a second is a stall of a busy machine.
"""

import os
from functools import partial

from project.asgi import application  # isort: skip  # sets Django up


from generation.api_keys.cache import KEPT_S, REFRESH_S, ApiKeyCache
from generation.runtime import process
from generation.telemetry import siblings

kept_s = float(os.environ.get("KEPT_S", KEPT_S))
paced = partial(ApiKeyCache, kept_s=kept_s, refresh_s=kept_s * REFRESH_S / KEPT_S)
vars(process)["ApiKeyCache"] = paced
siblings.ASK_LIMIT_S = float(os.environ.get("ASK_LIMIT_S", siblings.ASK_LIMIT_S))

__all__ = ["application"]
