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

settings.configure()
for name in ASKING:
    importlib.import_module(name)
vars(settings)["_wrapped"] = empty

# The children's collector passes over the libraries: to go through them takes time at each start,
# and copies the pages that parent and child share.
gc.collect()
gc.freeze()
gc.set_threshold(100_000)  # as the service's own; by default it takes a fifth of each start
