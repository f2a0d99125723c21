"""A project without Unfold, under a policy as strict as Django's own pages allow."""

from tests.browser.settings import *  # noqa: F403  # Django settings are one namespace
from tests.browser.settings import HAS_CSP, INSTALLED_APPS

INSTALLED_APPS = [
    app for app in INSTALLED_APPS if app != "project" and not app.startswith("unfold")
]
ROOT_URLCONF = "tests.browser.plain_urls"
DIRECTIVES = {"default-src": ["'self'"], "img-src": ["'self'", "data:"], "object-src": ["'none'"]}
if HAS_CSP:
    SECURE_CSP = DIRECTIVES
else:
    CONTENT_SECURITY_POLICY = {"DIRECTIVES": DIRECTIVES}
