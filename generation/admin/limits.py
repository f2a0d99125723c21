"""Limits in the admin: beside the key or user they are for, and in a list of all."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join

from generation import conf, standing
from generation.admin.theme import ModelForm, TabularInline
from generation.admin.users import UserLookupAdmin
from generation.limits.amounts import parse_amount
from generation.limits.refusals import written
from generation.models import ApiKey, Limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

_SOON = "Processes apply it within five seconds."
_WIDTH = 100  # of a bar
_FIELDS = ("unit", "amount", "window", "zone", "provider", "model", "is_enforced")


class LimitForm(ModelForm):
    """Takes amounts as people write them."""

    scope = ""  # of an inline, whose page says it

    amount = forms.CharField(
        required=False,
        max_length=40,
        widget=forms.TextInput(attrs={"class": "limit-amount", "size": 12}),
        help_text="E.g. 600, or 20.50 of US dollars. 0 blocks; empty is no limit.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.scope:
            self.instance.scope = self.scope
        if self.instance.amount is not None and "amount" in self.fields:
            self.initial["amount"] = written(self.instance.amount, self.instance.unit)

    def clean_zone(self) -> str:
        zone: str = self.cleaned_data["zone"]
        if zone and zone not in available_timezones():
            raise ValidationError(f"There is no time zone {zone}.")
        return zone

    def clean_provider(self) -> str:
        provider: str = self.cleaned_data["provider"]
        try:
            conf.load().read_targets(provider)
        except ValueError as error:  # or it would limit nothing
            raise ValidationError(f"{error}.") from None
        return provider

    def clean(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().clean() or self.cleaned_data
        text, unit = fields.get("amount", ""), fields.get("unit", self.instance.unit)
        try:
            fields["amount"] = parse_amount(text, unit) if text else None
        except ValueError as error:
            self.add_error("amount", f"{error}.")
        return fields


class KeyLimitForm(LimitForm):
    scope = "key"


class UserLimitForm(LimitForm):
    scope = "user"


class _LimitInline(TabularInline):
    model = Limit
    extra = 0
    fields = (*_FIELDS, "bar", "override")
    readonly_fields = ("bar", "override")

    @admin.display(description="used, reserved, left")
    def bar(self, limit: Limit) -> SafeString | str:
        return bar_of(limit)

    @admin.display(description="override")
    def override(self, limit: Limit) -> SafeString | str:
        return override_link(limit)


class KeyLimitInline(_LimitInline):
    form = KeyLimitForm
    fk_name = "api_key"
    verbose_name_plural = "Limits of this key"


class UserLimitInline(_LimitInline):
    form = UserLimitForm
    fk_name = "user"
    verbose_name_plural = "Limits of this user"


@admin.register(Limit)
class LimitAdmin(UserLookupAdmin):
    form = LimitForm
    list_display = ("label", "is_enforced", "bar", "override")
    list_select_related = ("user", "api_key")
    list_filter = ("scope", "unit", "is_enforced")
    fields = ("scope", "api_key", "user", *_FIELDS)

    def get_readonly_fields(self, request: HttpRequest, obj: Limit | None = None) -> Any:
        # Its windows count in this unit, for these.
        return ("scope", "api_key", "user", "unit", "bars") if obj else ()

    def get_fields(self, request: HttpRequest, obj: Limit | None = None) -> Any:
        return [*self.fields, "bars"] if obj else self.fields

    @admin.display(description="used, reserved, left")
    def bars(self, limit: Limit) -> SafeString | str:
        return _bars_of(limit, standing.SUBJECTS)

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: Any) -> None:
        super().save_model(request, obj, form, change)
        if unpriced := standing.unpriced([obj]):
            messages.warning(
                request,
                f"It refuses {unpriced}, whose price is unknown; LLM_PRICES can give one.",
            )

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.override_one)
        name = "generation_limit_override"
        return [path("<path:object_id>/override/", view, name=name), *super().get_urls()]

    def override_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks how much more, and on POST gives it until the window ends."""
        limit = self.get_object(request, unquote(object_id))
        if limit is None:
            raise Http404("There is no such limit.")
        if not self.has_change_permission(request, limit):
            raise PermissionDenied
        page = reverse("admin:generation_limit_change", args=[limit.pk])
        error = ""
        if request.method == "POST":
            try:
                standing.grant(limit, parse_amount(request.POST.get("amount", ""), limit.unit))
            except ValueError as fault:
                error = f"{fault}."
            else:
                self.log_change(request, limit, "Overridden until its window ends.")
                messages.success(request, f"It has more until its window ends. {_SOON}")
                return HttpResponseRedirect(page)
        context = {
            **self.admin_site.each_context(request),
            "title": f"More for {self.label(limit)}",
            "opts": self.opts,
            "media": self.media,
            "limit": limit,
            "page": page,
            "error": error,
            "unit": limit.get_unit_display(),
        }
        return TemplateResponse(request, "admin/generation/limit/override.html", context)

    @admin.display(description="limit")
    def label(self, limit: Limit) -> str:
        return label_of(limit)

    @admin.display(description="used, reserved, left")
    def bar(self, limit: Limit) -> SafeString | str:
        return bar_of(limit)

    @admin.display(description="override")
    def override(self, limit: Limit) -> SafeString | str:
        return override_link(limit)


def label_of(limit: Limit) -> str:
    owner = limit.api_key or limit.user
    who = str(owner) if owner else limit.get_scope_display()
    who = who if owner or limit.scope == Limit.Scope.ALL else f"each {limit.scope}"
    target = ":".join(filter(None, (limit.provider, limit.model)))
    amount = "no limit" if limit.amount is None else written(limit.amount, limit.unit)
    parts = (who, f"{amount} {limit.get_unit_display()}", limit.get_window_display(), target)
    return ", ".join(filter(None, parts))


def bar_of(limit: Limit) -> SafeString | str:
    """Returns a bar of what is used, reserved and left, with the figures. For a limit that each key
    or user has for itself, it is that of the one nearest to it."""
    return _bars_of(limit, 1)


def _bars_of(limit: Limit, at_most: int) -> SafeString | str:
    if limit.pk is None or limit.amount is None:
        return ""
    found = standing.standings([limit])
    if not _is_each(limit):
        return _bar(found[0], "")
    names = _names(limit, [each.subject for each in found])
    if names and len(found) > at_most:
        names[found[0].subject] += ", the nearest"
    bars = [_bar(each, names[each.subject]) for each in found[:at_most] if each.subject]
    return format_html_join("", "{}", ((bar,) for bar in bars)) or "nobody has used any"


def _is_each(limit: Limit) -> bool:
    return limit.scope != Limit.Scope.ALL and not (limit.api_key_id or limit.user_id)


def _names(limit: Limit, subjects: Sequence[str]) -> dict[str, str]:
    """Returns the names of these keys or users; of a deleted one, what is left: its id."""
    model: Any = ApiKey if limit.scope == Limit.Scope.KEY else get_user_model()
    found = model._base_manager.in_bulk(list(filter(None, subjects)))
    return {subject: subject for subject in subjects} | {
        str(key): str(each) for key, each in found.items()
    }


def _bar(now: standing.Standing, name: str) -> SafeString:
    whole = max(now.amount, now.committed, 1)
    used, reserved = (round(part * _WIDTH / whole) for part in (now.used, now.reserved))
    words = " | ".join(map(now.written, (now.used, now.reserved, now.left)))
    return format_html(
        '<span class="limit-bar"><svg viewBox="0 0 100 8" preserveAspectRatio="none"'
        ' aria-hidden="true"><rect class="limit-left" width="100" height="8"/>'
        '<rect class="limit-reserved" width="{}" height="8"/>'
        '<rect width="{}" height="8"/></svg>{}{}</span>',
        min(used + reserved, _WIDTH),
        min(used, _WIDTH),
        words,
        format_html(' <span class="log-aside">{}</span>', name) if name else "",
    )


def override_link(limit: Limit) -> SafeString | str:
    if limit.pk is None or limit.window not in {"day", "week", "month", "ever"}:
        return ""
    url = reverse("admin:generation_limit_override", args=[limit.pk])
    return format_html(
        '<a class="log-export" title="Until its window ends" href="{}">Grant more</a>', url
    )
