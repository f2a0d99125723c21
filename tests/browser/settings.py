"""The project's settings, with static files that a browser keeps, as in production.

While DEBUG is on, each page would ask for all of its style sheets, scripts and fonts again.
"""

from project.settings import *  # noqa: F403  # Django settings are one namespace

SERVESTATIC_AUTOREFRESH = False
SERVESTATIC_MAX_AGE = 600
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the tests' own
