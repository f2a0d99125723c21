"""Profiles in the admin: the users' prompts, which people edit."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from generation.admin import columns
from generation.admin.pagination import NewestFirstAdmin
from generation.admin.theme import ModelForm
from generation.conf.fields import PROVIDERS
from generation.models import Profile

if TYPE_CHECKING:
    from django.db.models import ForeignKey
    from django.forms import ModelChoiceField
    from django.http import HttpRequest
    from django.utils.safestring import SafeString


class ProfileForm(ModelForm):
    def clean_prompt_template(self) -> str:
        text: str = self.cleaned_data["prompt_template"]
        for match in Template.pattern.finditer(text):
            if match["invalid"] is not None:
                line = text.count("\n", 0, match.start()) + 1
                raise ValidationError(
                    f"Line {line} has a $ without a name. Write $$ for a dollar sign, $input for"
                    " the request's input, and $name or ${name} for a variable."
                )
        return text

    def clean_provider(self) -> str:
        provider: str = self.cleaned_data["provider"]
        if provider and provider not in PROVIDERS:
            raise ValidationError(f"Leave this empty, or use one of {', '.join(PROVIDERS)}.")
        return provider


@admin.register(Profile)
class ProfileAdmin(NewestFirstAdmin):
    form = ProfileForm
    list_display = ("user", "template_excerpt", "provider", "model", "max_tokens")
    list_select_related = ("user",)
    warn_unsaved_form = True
    search_help_text = "Start of the user name, or user id"
    fields = ("user", "prompt_template", "system", "provider", "model", "max_tokens")

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return (f"user__{get_user_model().USERNAME_FIELD}__startswith", "user__pk__exact")

    def get_readonly_fields(
        self, request: HttpRequest, obj: Profile | None = None
    ) -> tuple[str, ...]:
        # The user is the primary key, so saving with another user would make a second profile.
        return ("user",) if obj else ()

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # If declared as a field, it would fail the system check where users have no admin page.
        users = self.admin_site._registry.get(get_user_model())  # noqa: SLF001  # raises if public
        return ("user",) if users and users.get_search_fields(request) else ()

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        # A plain select would load every user.
        if db_field.name not in self.get_autocomplete_fields(request):
            kwargs["widget"] = ForeignKeyRawIdWidget(db_field.remote_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    @admin.display(description="prompt template")
    def template_excerpt(self, profile: Profile) -> SafeString:
        return columns.excerpt(profile.prompt_template)
