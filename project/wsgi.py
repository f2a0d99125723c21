"""Tells WSGI servers that they can't serve this."""

from django.core.exceptions import ImproperlyConfigured

raise ImproperlyConfigured(
    "Staccato needs an event loop, which a WSGI server does not have. Serve it with"
    " `uvicorn project.asgi:application --workers N`, or `manage.py runserver` for development."
)
