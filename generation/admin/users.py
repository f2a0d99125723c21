"""Users by name: in fields, because a plain select would load every user, and in searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.auth import get_user_model

from generation.admin.pagination import NewestFirstAdmin
from generation.admin.theme import RawIdsWidget, RawIdWidget

if TYPE_CHECKING:
    from django.http import HttpRequest


class UserLookupAdmin(NewestFirstAdmin):
    """A page whose `user_fields` are searched for by name, or else entered by id."""

    user_fields: ClassVar[tuple[str, ...]] = ("user",)

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # If declared as a field, it would fail the system check where users have no admin page.
        users = self.admin_site._registry.get(get_user_model())  # noqa: SLF001  # raises if public
        can_search = (
            users is not None
            and users.get_search_fields(request)
            and users.has_view_permission(request)
        )
        return self.user_fields if can_search else ()

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name not in self.get_autocomplete_fields(request):
            kwargs["widget"] = RawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name not in self.get_autocomplete_fields(request):
            kwargs["widget"] = RawIdsWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_manytomany(db_field, request, **kwargs)
