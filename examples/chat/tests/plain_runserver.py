"""The settings of a project without daphne, so that `runserver` is Django's own, synchronous one."""

from config.settings import *  # noqa: F403  # settings are one namespace
from config.settings import INSTALLED_APPS as THEIRS

INSTALLED_APPS = [app for app in THEIRS if app != "daphne"]
