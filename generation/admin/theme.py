"""Unfold's classes, typed as the Django classes that they extend: Unfold ships no types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django import forms
    from django.contrib import admin
    from django.contrib.admin.filters import FieldListFilter as RangeDateTimeFilter
    from django.contrib.admin.filters import SimpleListFilter as DropdownFilter
    from django.contrib.admin.views.main import ChangeList
    from django.utils.safestring import SafeString

    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[Any]

    def display_for_label(value: object, empty: str, kinds: object) -> SafeString: ...

else:
    from django.forms import ModelForm
    from unfold.admin import ModelAdmin
    from unfold.contrib.filters.admin import DropdownFilter, RangeDateTimeFilter
    from unfold.utils import display_for_label
    from unfold.views import ChangeList

__all__ = [
    "ChangeList",
    "DropdownFilter",
    "ModelAdmin",
    "ModelForm",
    "RangeDateTimeFilter",
    "display_for_label",
]
