"""HTTP goes to Django, WebSockets to Channels. There is no lifespan: Staccato opens at first use."""

import os
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_asgi_application()

from chat.consumers import ChatConsumer  # noqa: E402  # after Django's setup

chat: Any = ChatConsumer.as_asgi()  # `path()` is typed for Django's views
routes: list[Any] = [path("ws/<uuid:conversation_id>", chat)]
application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(routes))),
    }
)
