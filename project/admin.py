"""Users and groups in the look of the other admin pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

if TYPE_CHECKING:
    # Unfold ships no types, and its class changes no signature.
    BaseUserAdmin = UserAdmin[User]
    BaseGroupAdmin = GroupAdmin
else:
    from unfold.admin import ModelAdmin

    class BaseUserAdmin(UserAdmin, ModelAdmin): ...

    class BaseGroupAdmin(GroupAdmin, ModelAdmin): ...


admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class StyledUserAdmin(BaseUserAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class StyledGroupAdmin(BaseGroupAdmin):
    pass
