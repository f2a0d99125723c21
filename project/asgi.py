"""`uvicorn project.asgi:application`: the service in production."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from generation.asgi import get_application  # the settings must be named first
from project.proxies import behind_trusted

application = behind_trusted(get_application())
