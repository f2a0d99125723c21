"""The service, but that it remembers API keys for KEPT_S seconds only: no test waits for 30."""

import os

from project.asgi import application  # isort: skip  # sets Django up

from generation.api_keys import cache as keys

keys.KEPT_S = float(os.environ["KEPT_S"])
keys.REFRESH_S = keys.KEPT_S * 2 / 3

__all__ = ["application"]
