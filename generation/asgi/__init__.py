"""The ASGI side: what is judged before Django sees a request, and who serves it."""

from generation.asgi.application import get_application

__all__ = ["get_application"]
