"""Who may see the pages for operators: everybody, staff, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from generation import problems
from generation.errors import NotFound, StaffOnly

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from generation.conf import Access


async def refuse(request: HttpRequest, access: Access) -> HttpResponse | None:
    """The refusal, or None for who may see the page.

    `staff` needs a session and so the full middleware; `asgi.py` sees to that.
    """
    if access == "open":
        return None
    if access == "off":
        return problems.respond(NotFound("this page is switched off"))
    user = await request.auser()
    if user.is_active and getattr(user, "is_staff", False):
        return None
    return problems.respond(StaffOnly("log in to the admin as a member of the staff first"))
