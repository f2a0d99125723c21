"""The project's settings, for a service that no test asks for a static file.

To list them takes a seventh of its start, and a hash as in production half a second.
"""

from project.settings import *  # noqa: F403  # Django settings are one namespace

SERVESTATIC_AUTOREFRESH = SERVESTATIC_USE_FINDERS = SERVESTATIC_USE_STATIC_ROOT = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the tests' own
