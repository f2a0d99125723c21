"""A WSGI server can't serve this, and is told so."""

from django.core.exceptions import ImproperlyConfigured

raise ImproperlyConfigured(
    "Staccato waits for LLMs in one event loop, which no WSGI server has. Serve it with"
    " `uvicorn project.asgi:application --workers N`, or `manage.py runserver` to develop."
)
