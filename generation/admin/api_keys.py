"""API keys in the admin: created, shown once, and revoked."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.timezone import now

from generation import conf
from generation.admin import columns
from generation.admin.content import name_service_content
from generation.admin.limits import KeyLimitInline
from generation.admin.overview.periods import DAY
from generation.admin.overview.writing import spending_url
from generation.admin.theme import IS_UNFOLD, ModelForm
from generation.admin.users import UserLookupAdmin
from generation.api_keys import tokens
from generation.models import ApiKey, Profile

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

_FACTS = ("public_part", "state_label", "all_users_named", "last_used", "created")
_NAMES_SHOWN = 100
_SOON = "Revoked keys stop working within 30 seconds."


class ApiKeyForm(ModelForm):
    class Meta:
        help_texts: ClassVar = {
            "user": "Only for the scope “one user”. Type to search.",
            "users": "Only for the scope “the users named below”. Type to search.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name_service_content(self)
        if "allowed_models" in self.fields:  # a list of a few names, not a text
            self.fields["allowed_models"].widget.attrs["rows"] = 2

    def clean_allowed_models(self) -> str:
        text: str = self.cleaned_data["allowed_models"]
        try:
            conf.load().read_targets(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return text

    def clean(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().clean() or self.cleaned_data
        scope = fields.get("scope", self.instance.scope)
        if "user" in self.fields and (scope == ApiKey.Scope.USER) != bool(fields.get("user")):
            self.add_error("user", "Name a user here if the scope is “one user”, and only then.")
        if "users" in self.fields and (scope == ApiKey.Scope.USERS) != bool(fields.get("users")):
            self.add_error(
                "users", "Name users here if the scope is “the users named below”, and only then."
            )
        expires = fields.get("expires_at")
        if self.instance.pk is None and expires is not None and expires <= now():
            self.add_error("expires_at", "This moment has passed: the key would never work.")
        return fields


@admin.register(ApiKey)
class ApiKeyAdmin(UserLookupAdmin):
    form = ApiKeyForm
    user_fields = ("user", "users")
    list_display = (
        "name",
        "public_part",
        "state_label",
        "audience",
        "last_used",
        "expires",
        "created",
    )
    list_select_related = ("user",)
    search_fields = ("prefix__exact", "name__startswith")
    search_help_text = "Prefix, or the start of the name"
    actions = ("revoke",)
    fieldsets = (
        (None, {"fields": ("name", "scope", "user", "users")}),
        ("What it may do", {"fields": ("allowed_models", "expires_at", "log_content")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).prefetch_related("users")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        # What a backend that generates for its own users needs; it is complete with a name.
        return {"scope": ApiKey.Scope.ALL, **super().get_changeform_initial_data(request)}

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        named = ("users",) if obj.scope == ApiKey.Scope.USERS else ()
        return (
            (None, {"fields": ("name", "scope", *named)}),
            (
                "What it may do",
                {"fields": ("allowed_models", "expires_at", "log_content", "weight")},
            ),
            ("The key", {"fields": _FACTS}),
        )

    def get_inlines(self, request: HttpRequest, obj: ApiKey | None) -> list[Any]:
        return [KeyLimitInline] if obj else []  # a key is first made, and then limited

    def get_readonly_fields(
        self, request: HttpRequest, obj: ApiKey | None = None
    ) -> tuple[str, ...]:
        # The holder of a key relies on its scope; for another scope, make another key.
        return (*_FACTS, "scope", "user") if obj else _FACTS

    def get_urls(self) -> list[Any]:
        revoke = self.admin_site.admin_view(self.revoke_one)
        name = "generation_apikey_revoke"
        return [path("<path:object_id>/revoke/", revoke, name=name), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        key = context.get("original")
        context["may_revoke"] = (
            key is not None and not key.revoked_at and self.has_change_permission(request, key)
        )
        if key is not None and request.user.has_perm("generation.view_generationlog"):
            context["spending_url"] = spending_url(DAY, "api_key", str(key.pk))
        context["is_unfold"] = IS_UNFOLD
        return super().render_change_form(request, context, *args, **kwargs)

    def revoke_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks, and on POST revokes."""
        key = self.get_object(request, unquote(object_id))
        if key is None:
            raise Http404("There is no such key.")
        if not self.has_change_permission(request, key):
            raise PermissionDenied
        page = reverse("admin:generation_apikey_change", args=[key.pk])
        if key.revoked_at:
            messages.info(request, f"{key} was revoked before.")
            return HttpResponseRedirect(page)
        if request.method == "POST":
            self.get_queryset(request).filter(pk=key.pk).update(revoked_at=now())
            self.log_change(request, key, "Revoked.")
            messages.success(request, f"{key} is revoked. {_SOON}")
            return HttpResponseRedirect(page)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Revoke {key.name}?",
            "opts": self.opts,
            "media": self.media,
            "key": key,
            "page": page,
            "soon": _SOON,
        }
        return TemplateResponse(request, "admin/generation/apikey/revoke.html", context)

    def save_model(
        self,
        request: HttpRequest,
        obj: ApiKey,
        form: ModelForm,
        change: bool,  # noqa: FBT001  # Django's signature
    ) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        new = tokens.make(conf.load().pepper)
        obj.prefix, obj.digest = new.prefix, new.digest
        super().save_model(request, obj, form, change)
        obj.text = new.text  # type: ignore[attr-defined]  # for response_add

    def response_add(
        self,
        request: HttpRequest,
        obj: ApiKey,
        post_url_continue: str | None = None,
    ) -> HttpResponse:
        """Shows the key without a redirect, because a message would store it in a cookie."""
        key: str = obj.text  # type: ignore[attr-defined]  # from save_model
        url = request.build_absolute_uri(
            reverse("staccato:generate", kwargs={"user_id": _example_user(obj)})
        )
        context = {
            **self.admin_site.each_context(request),
            "title": f"API key for {obj.name}",
            "opts": self.opts,
            "media": self.media,
            "key": key,
            "api_key": obj,
            "curl": f"curl -X POST {shlex.quote(url)} -H 'Authorization: Bearer {key}'",
        }
        response = TemplateResponse(request, "admin/generation/apikey/created.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = queryset.filter(revoked_at=None).update(revoked_at=now())
        for key in queryset:
            self.log_change(request, key, "Revoked.")
        keys = "1 key" if count == 1 else f"{count} keys"
        messages.success(request, f"{keys} revoked. {_SOON}")

    @admin.display(description="public part")
    def public_part(self, key: ApiKey) -> SafeString:
        return format_html("<code>stc_{}…</code>", key.prefix)

    @admin.display(description="state")
    def state_label(self, key: ApiKey) -> SafeString:
        return columns.label(key.state, key.state.label)

    @admin.display(description="for")
    def audience(self, key: ApiKey) -> str:
        return key.audience

    @admin.display(description="for")
    def all_users_named(self, key: ApiKey) -> str:
        if key.scope != ApiKey.Scope.USERS:
            return key.audience
        names = sorted(user.get_username() for user in key.users.all())
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        return f"{', '.join(names[:_NAMES_SHOWN])}{more}" or "no user"

    @admin.display(description="last used")
    def last_used(self, key: ApiKey) -> str:
        return columns.minute(key.last_used_at)

    @admin.display(description="expires")
    def expires(self, key: ApiKey) -> str:
        return columns.minute(key.expires_at)

    @admin.display(description="created")
    def created(self, key: ApiKey) -> str:
        return columns.minute(key.created_at)


def _example_user(key: ApiKey) -> Any:
    """Returns the key of a user that the API key is for, with a profile if there is one."""
    profiles = Profile.objects.order_by("pk")
    if key.scope == ApiKey.Scope.USER and key.user_id is not None:
        return key.user_id
    if key.scope == ApiKey.Scope.USERS:
        profiles = profiles.filter(user__in=key.users.all())
    return profiles.values_list("pk", flat=True).first() or "USER"
