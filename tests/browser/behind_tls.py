"""The project's settings as in production, with static files that nobody has collected."""

from tests.browser.settings import *  # noqa: F403  # Django settings are one namespace

SERVESTATIC_USE_FINDERS = True
