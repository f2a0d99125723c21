"""Users and groups, in the theme of the other admin pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from generation.admin.limits import UserLimitInline
from generation.admin.theme import ModelAdmin

if TYPE_CHECKING:
    from django.http import HttpRequest

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class StyledUserAdmin(UserAdmin, ModelAdmin):  # type: ignore[type-arg]  # no generic at run time
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def get_inlines(self, request: HttpRequest, obj: User | None) -> list[Any]:  # noqa: ARG002  # Django's signature
        return [UserLimitInline] if obj else []  # a user is first made, and then limited

    class Media:
        css: ClassVar = {"all": ["generation/admin.css"]}


@admin.register(Group)
class StyledGroupAdmin(GroupAdmin, ModelAdmin):
    class Media:
        css: ClassVar = {"all": ["generation/admin.css"]}
