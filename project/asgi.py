"""`uvicorn project.asgi:application`: the service in production."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

from generation.asgi import get_application  # the settings must be named first

application = get_application()
