"""Failed logins: an address is locked soon, an account late, and never for a browser it knows.

A stranger must not guess a password, nor keep the owner out by failing on purpose. So failures
count in three ways, each for `AXES_COOLOFF_TIME`:

- by address: at `AXES_FAILURE_LIMIT` it is locked, whatever accounts it tried;
- by account, from wherever they come: at `ACCOUNT_LIMIT` it is locked for unknown browsers. One
  address can't bring that about, because it is locked before;
- by known browser: one that logged in to this account before shows a signed cookie, has a count of
  its own, and is touched by neither of the other two.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from axes.attempts import get_cool_off_threshold
from axes.conf import settings  # Django's, with axes' defaults
from axes.handlers.database import AxesDatabaseHandler
from axes.helpers import get_client_username, get_failure_limit
from axes.models import AccessAttempt
from django.contrib import admin
from django.db.models import Sum
from django.utils.crypto import constant_time_compare, salted_hmac

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

# 200 guesses an hour at one account, from however many addresses.
ACCOUNT_LIMIT = 50
COOKIE = "known_browser"
COOKIE_AGE_S = 180 * 24 * 3600
_SALT = "project.lockout"


def login(request: HttpRequest) -> HttpResponseBase:
    """The admin's login; after a success it marks the browser as known to the account."""
    response = admin.site.login(request)
    if request.method == "POST" and request.user.is_authenticated:
        response.set_signed_cookie(
            COOKIE,
            f"{_account(request.user.get_username())}-{secrets.token_hex(8)}",
            salt=_SALT,
            max_age=COOKIE_AGE_S,
            path=request.path,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
    return response


def counted_name(request: HttpRequest, credentials: Mapping[str, Any] | None) -> str | None:
    """axes' AXES_USERNAME_CALLABLE. Returns the name under which a login's failure is counted."""
    given = credentials or request.POST
    name = given.get(settings.AXES_USERNAME_FORM_FIELD)
    if browser := name and known_browser(request, name):
        return f"{name} in the known browser {browser}"
    return name


def known_browser(request: HttpRequest, name: str) -> str | None:
    """Returns the id of a browser that has logged in to this account before."""
    cookie = request.get_signed_cookie(COOKIE, "", salt=_SALT, max_age=COOKIE_AGE_S) or ""
    account, _, browser = cookie.partition("-")
    return browser if constant_time_compare(account, _account(name)) else None


def _account(name: str) -> str:
    return salted_hmac(_SALT, name, algorithm="sha256").hexdigest()[:32]


class LoginHandler(AxesDatabaseHandler):  # type: ignore[misc]  # axes ships no types
    """axes' AXES_HANDLER."""

    def get_failures(self, request: Any, credentials: dict[str, Any] | None = None) -> int:
        name = get_client_username(request, credentials)
        since = get_cool_off_threshold(request)
        recent = AccessAttempt.objects.filter(attempt_time__gte=since)
        of_name = _failures(recent.filter(username=name))
        if name != (credentials or request.POST).get(settings.AXES_USERNAME_FORM_FIELD):
            return of_name  # a known browser's
        if of_name >= ACCOUNT_LIMIT:
            limit: int = get_failure_limit(request, credentials)
            return max(of_name, limit)
        return _failures(recent.filter(ip_address=request.axes_ip_address))

    def filter_user_attempts(
        self, request: Any, credentials: dict[str, Any] | None = None
    ) -> list[QuerySet[AccessAttempt]]:
        """Returns what a success forgets: not what the same address tried on other accounts."""
        name = get_client_username(request, credentials)
        address = request.axes_ip_address
        return [AccessAttempt.objects.filter(username=name, ip_address=address)]


def _failures(attempts: QuerySet[AccessAttempt]) -> int:
    total: int | None = attempts.aggregate(total=Sum("failures_since_start"))["total"]
    return total or 0
