"""The ASGI side: what is judged before Django sees a request, and who serves it."""

from generation.asgi.application import get_application
from generation.asgi.service import get_service

__all__ = ["get_application", "get_service"]
