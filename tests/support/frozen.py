"""Imported last by the process that forks.

Some libraries want to know Django's settings when they are imported. Of those that look for their
own names only, which no test sets, the imports are made with Django's defaults, and the settings
are as unread as before.
"""

import gc
import importlib

from django.conf import settings
from django.utils.functional import empty

ASKING = [
    "django.contrib.postgres.fields",
    "ninja",
]

# These import some of those, and ask for no settings.
NOT_ASKING = [
    "csp.middleware",
    "django.contrib.auth.hashers",
    "django.contrib.auth.password_validation",
    "django.contrib.auth.tokens",
    "django.templatetags.cache",
    "django.templatetags.l10n",
    "django.templatetags.tz",
    "generation.api.anthropic.answers",
    "generation.api.native.events",
    "generation.api.native.examples",
    "generation.api.openai.response_answers",
    "generation.asgi.head",
    "unfold.components",
    "unfold.contrib.filters.forms",
    "unfold.fields",
    "unfold.sections",
    "unfold.sites",
    "unfold.widgets",
]

settings.configure()
for name in ASKING:
    importlib.import_module(name)
vars(settings)["_wrapped"] = empty
for name in NOT_ASKING:
    importlib.import_module(name)

# The children's collector passes over the libraries: to go through them takes time at each start,
# and copies the pages that parent and child share.
gc.collect()
gc.freeze()
gc.set_threshold(100_000)  # as the service's own; by default it takes a fifth of each start
