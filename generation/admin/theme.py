"""Unfold's classes, typed as the Django classes that they extend: Unfold ships no types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django import forms
    from django.contrib import admin
    from django.contrib.admin.filters import FieldListFilter as RangeDateTimeFilter
    from django.contrib.admin.filters import SimpleListFilter as DropdownFilter
    from django.contrib.admin.views.main import ChangeList
    from django.contrib.admin.widgets import ForeignKeyRawIdWidget as RawIdWidget
    from django.contrib.admin.widgets import ManyToManyRawIdWidget as RawIdsWidget
    from django.forms import Select as SelectWidget
    from django.utils.safestring import SafeString

    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[Any]
    TabularInline = admin.TabularInline[Any, Any]

    def display_for_label(value: object, empty: str, kinds: object) -> SafeString: ...

else:
    from django.contrib.admin.widgets import ManyToManyRawIdWidget
    from django.forms import ModelForm
    from unfold.admin import ModelAdmin, TabularInline
    from unfold.contrib.filters.admin import DropdownFilter, RangeDateTimeFilter
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


__all__ = [
    "ChangeList",
    "DropdownFilter",
    "ModelAdmin",
    "ModelForm",
    "RangeDateTimeFilter",
    "RawIdWidget",
    "RawIdsWidget",
    "SelectWidget",
    "TabularInline",
    "display_for_label",
]
