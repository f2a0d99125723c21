"""API keys in the admin: created, shown once, and revoked."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.widgets import ForeignKeyRawIdWidget, ManyToManyRawIdWidget
from django.core.exceptions import ValidationError
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.timezone import now

from generation import conf
from generation.admin import columns
from generation.admin.pagination import NewestFirstAdmin
from generation.admin.theme import ModelForm
from generation.api_keys import tokens
from generation.models import ApiKey

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

_FACTS = ("public_part", "state_label", "last_used", "created")


class ApiKeyForm(ModelForm):
    def clean_allowed_models(self) -> str:
        text: str = self.cleaned_data["allowed_models"]
        try:
            conf.parse_targets(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return text

    def clean(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().clean() or self.cleaned_data
        scope = fields.get("scope", self.instance.scope)
        if "user" in self.fields and (scope == ApiKey.Scope.USER) != bool(fields.get("user")):
            self.add_error("user", "Name a user here if the scope is “one user”, and only then.")
        if "users" in self.fields and scope != ApiKey.Scope.USERS and fields.get("users"):
            self.add_error("users", "Name users here only if the scope is “the users named below”.")
        return fields


@admin.register(ApiKey)
class ApiKeyAdmin(NewestFirstAdmin):
    form = ApiKeyForm
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
        ("Limits", {"fields": ("allowed_models", "expires_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).prefetch_related("users")

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        return (*self.fieldsets, ("The key", {"fields": _FACTS}))

    def get_readonly_fields(
        self, request: HttpRequest, obj: ApiKey | None = None
    ) -> tuple[str, ...]:
        # The holder of a key relies on its scope; for another scope, make another key.
        return (*_FACTS, "scope", "user") if obj else _FACTS

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        # A plain select would load every user.
        kwargs["widget"] = ForeignKeyRawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["widget"] = ManyToManyRawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

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
        context = {
            **self.admin_site.each_context(request),
            "title": f"API key for {obj.name}",
            "opts": self.opts,
            "media": self.media,
            "key": obj.text,  # type: ignore[attr-defined]  # from save_model
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
        messages.success(request, f"{keys} revoked. Revoked keys stop working within 30 seconds.")

    @admin.display(description="public part")
    def public_part(self, key: ApiKey) -> SafeString:
        return format_html("<code>stc_{}…</code>", key.prefix)

    @admin.display(description="state")
    def state_label(self, key: ApiKey) -> SafeString:
        return columns.label(key.state, key.state.label)

    @admin.display(description="for")
    def audience(self, key: ApiKey) -> str:
        return key.audience

    @admin.display(description="last used")
    def last_used(self, key: ApiKey) -> str:
        return columns.minute(key.last_used_at)

    @admin.display(description="expires")
    def expires(self, key: ApiKey) -> str:
        return columns.minute(key.expires_at)

    @admin.display(description="created")
    def created(self, key: ApiKey) -> str:
        return columns.minute(key.created_at)
