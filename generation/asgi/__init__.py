from generation.asgi.application.application import get_application

__all__ = ["get_application"]
