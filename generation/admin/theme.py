"""What our pages are built from: Unfold's classes where its site serves the admin, else Django's.

Each is typed as the class of Django that it is or extends: Unfold ships no types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.utils.html import format_html

if TYPE_CHECKING:
    from django import forms
    from django.contrib.admin.views.main import ChangeList
    from django.contrib.admin.widgets import ForeignKeyRawIdWidget as RawIdWidget
    from django.contrib.admin.widgets import ManyToManyRawIdWidget as RawIdsWidget
    from django.forms import Select as SelectWidget
    from django.utils.safestring import SafeString

    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[Any]
    TabularInline = admin.TabularInline[Any, Any]

NEEDED = ("unfold", "unfold.contrib.filters")


def serves_unfold() -> bool:
    """Whether the pages that are registered now will be Unfold's: it has replaced `admin.site`."""
    if not all(map(apps.is_installed, NEEDED)):
        return False
    from unfold.sites import UnfoldAdminSite

    return isinstance(admin.site, UnfoldAdminSite)


IS_UNFOLD = serves_unfold()
STYLES = ["generation/admin.css", *([] if IS_UNFOLD else ["generation/django.css"])]

if TYPE_CHECKING:

    def display_for_label(value: object, empty: str, kinds: object) -> SafeString: ...

elif IS_UNFOLD:
    from django.contrib.admin.widgets import ManyToManyRawIdWidget
    from django.forms import ModelForm
    from unfold.admin import ModelAdmin, TabularInline
    from unfold.utils import display_for_label
    from unfold.views import ChangeList
    from unfold.widgets import INPUT_CLASSES
    from unfold.widgets import UnfoldAdminSelectWidget as SelectWidget
    from unfold.widgets import UnfoldForeignKeyRawIdWidget as RawIdWidget

    class RawIdsWidget(ManyToManyRawIdWidget):
        """Unfold leaves it without a border."""

        template_name = "unfold/widgets/foreign_key_raw_id.html"

        def __init__(self, rel: Any, admin_site: Any) -> None:
            classes = " ".join(["vManyToManyRawIdAdminField", *INPUT_CLASSES])
            super().__init__(rel, admin_site, attrs={"class": classes})

else:
    from django.contrib.admin import ModelAdmin, TabularInline
    from django.contrib.admin.views.main import ChangeList
    from django.contrib.admin.widgets import ForeignKeyRawIdWidget as RawIdWidget
    from django.contrib.admin.widgets import ManyToManyRawIdWidget as RawIdsWidget
    from django.forms import ModelForm
    from django.forms import Select as SelectWidget

    def display_for_label(value: tuple[str, str], _empty: str, kinds: dict[str, str]) -> SafeString:
        key, text = value
        kind = kinds.get(key, "plain")
        return format_html('<span class="log-label log-label-{}">{}</span>', kind, text)


__all__ = [
    "IS_UNFOLD",
    "NEEDED",
    "STYLES",
    "ChangeList",
    "ModelAdmin",
    "ModelForm",
    "RawIdWidget",
    "RawIdsWidget",
    "SelectWidget",
    "TabularInline",
    "display_for_label",
]
