"""API keys in the admin: shown once when made, revoked, never edited into something else."""

# ruff: noqa: ARG002  # Django's hooks are given more than each needs

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.widgets import ForeignKeyRawIdWidget, ManyToManyRawIdWidget
from django.core.exceptions import ValidationError
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.timezone import localtime, now
from unfold.utils import display_for_label

from generation.admin.pagination import NewestFirst
from generation.api_keys import tokens as credentials
from generation.models import ApiKey

if TYPE_CHECKING:
    from datetime import datetime

    from django import forms
    from django.contrib.admin.views.main import ChangeList
    from django.db.models import QuerySet
    from django.forms import ModelForm as DjangoModelForm
    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString

    # Unfold ships no types; its classes extend these.
    ModelAdmin = admin.ModelAdmin[ApiKey]
    ModelForm = DjangoModelForm[ApiKey]
else:
    from django.forms import ModelForm
    from unfold.admin import ModelAdmin

STATES = {"active": "success", "expired": "warning", "revoked": "danger"}


class ApiKeyForm(ModelForm):
    def clean_allowed_models(self) -> str:
        text: str = self.cleaned_data["allowed_models"]
        try:
            credentials.parse_targets(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return text

    def clean(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().clean() or self.cleaned_data
        scope = fields.get("scope", self.instance.scope)
        if "user" in self.fields and (scope == ApiKey.Scope.USER) != bool(fields.get("user")):
            self.add_error("user", "Name the user of a key for one user, and of no other.")
        if "users" in self.fields and scope != ApiKey.Scope.USERS and fields.get("users"):
            self.add_error("users", "These are for the scope “the users named below”.")
        return fields


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    form = ApiKeyForm

    class Media:
        css: ClassVar = {"all": ["generation/admin.css"]}

    list_display = ("name", "public_part", "state", "reach", "last_used", "expires", "created")
    list_select_related = ("user",)
    sortable_by = ()
    show_full_result_count = False
    search_fields = ("prefix__exact", "name__startswith")
    search_help_text = "Prefix, or the start of the name"
    actions = ("revoke",)
    fieldsets = (
        (None, {"fields": ("name", "scope", "user", "users")}),
        ("Limits", {"fields": ("allowed_models", "expires_at")}),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return NewestFirst

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        facts = ("public_part", "state", "last_used", "created")
        return (*self.fieldsets, ("The key", {"fields": facts}))

    def get_readonly_fields(
        self, request: HttpRequest, obj: ApiKey | None = None
    ) -> tuple[str, ...]:
        facts = ("public_part", "state", "last_used", "created")
        # Whoever holds a key was told what it is for: another scope is another key.
        return (*facts, "scope", "user") if obj else facts

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        # A plain select would list every user.
        kwargs["widget"] = ForeignKeyRawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["widget"] = ManyToManyRawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_model(
        self,
        request: HttpRequest,
        obj: ApiKey,
        form: forms.ModelForm[Any],
        change: bool,  # noqa: FBT001
    ) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        new = credentials.make()
        obj.prefix, obj.digest = new.prefix, new.digest
        super().save_model(request, obj, form, change)
        obj.text = new.text  # type: ignore[attr-defined]  # for the page that follows

    def response_add(
        self,
        request: HttpRequest,
        obj: ApiKey,
        post_url_continue: str | None = None,
    ) -> HttpResponse:
        """No redirect: a message that outlives the request would store the key in a cookie."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"API key for {obj.name}",
            "opts": self.opts,
            "key": obj.text,  # type: ignore[attr-defined]
        }
        response = TemplateResponse(request, "admin/generation/apikey/created.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = queryset.filter(revoked_at=None).update(revoked_at=now())
        for key in queryset:
            self.log_change(request, key, "Revoked.")
        messages.success(request, f"{count} revoked; within half a minute they open no door.")

    @admin.display(description="public part")
    def public_part(self, key: ApiKey) -> SafeString:
        return format_html("<code>stc_{}…</code>", key.prefix)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> SafeString:
        name = "active"
        if key.revoked_at:
            name = "revoked"
        elif key.expires_at and key.expires_at <= now():
            name = "expired"
        shown: SafeString = display_for_label((name, name), "", STATES)
        return shown

    @admin.display(description="for")
    def reach(self, key: ApiKey) -> str:
        return key.user.get_username() if key.user else key.get_scope_display()

    @admin.display(description="last used")
    def last_used(self, key: ApiKey) -> str:
        return show(key.last_used_at)

    @admin.display(description="expires")
    def expires(self, key: ApiKey) -> str:
        return show(key.expires_at)

    @admin.display(description="created")
    def created(self, key: ApiKey) -> str:
        return show(key.created_at)


def show(moment: datetime | None) -> str:
    return localtime(moment).strftime("%Y-%m-%d %H:%M") if moment else "never"
