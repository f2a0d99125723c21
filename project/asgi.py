"""`uvicorn project.asgi:application`: the service in production."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from generation.asgi import get_service  # after the settings are named
from project.proxies import trust_proxies

application = trust_proxies(get_service())
