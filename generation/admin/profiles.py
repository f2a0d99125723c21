"""Profiles in the admin: the users' prompts, which people edit."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from generation import conf
from generation.admin import columns
from generation.admin.content import name_service_content
from generation.admin.theme import ModelForm, SelectWidget
from generation.admin.users import UserLookupAdmin
from generation.errors import ModelNotAllowed
from generation.llm.offer import Offer
from generation.models import Profile
from generation.pipeline import prompts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest, HttpResponse
    from django.utils.safestring import SafeString


class ProfileForm(ModelForm):
    class Meta:
        help_texts: ClassVar = {"provider": "", "model": ""}  # their first choice says it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        name_service_content(self)
        self.offer = Offer(conf.load())
        default = self.offer.targets[0]
        models: dict[str, list[str]] = {}
        for provider, model in self.offer.targets:
            models.setdefault(model, []).append(provider)
        self._offer_choices(
            "provider",
            f"The service's default ({default.provider})",
            ((target.provider, target.provider) for target in self.offer.targets),
        )
        self._offer_choices(
            "model",
            "The provider's default",
            ((model, f"{model} ({', '.join(names)})") for model, names in models.items()),
        )

    def _offer_choices(self, name: str, default: str, offered: Iterable[tuple[str, str]]) -> None:
        if name not in self.fields:  # for a person who may only look
            return
        choices = {"": default, **dict(offered)}
        saved = getattr(self.instance, name)
        choices.setdefault(saved, f"{saved} (no longer offered)")
        field = self.fields[name]
        field.widget = SelectWidget(choices=list(choices.items()))
        field.widget.is_required = field.required

    def clean_prompt_template(self) -> str:
        text: str = self.cleaned_data["prompt_template"]
        if fault := prompts.template_fault(text):
            raise ValidationError(fault)
        return text

    def clean(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().clean() or self.cleaned_data
        provider, model = fields.get("provider", ""), fields.get("model", "")
        try:
            self.offer.choose(provider, model)
        except ModelNotAllowed as error:
            named = "model" if model else "provider"
            self.add_error(named, f"{error}. Choose one of these, or leave the default.")
        return fields


@admin.register(Profile)
class ProfileAdmin(UserLookupAdmin):
    form = ProfileForm
    list_display = ("user", "template_excerpt", "provider", "model", "max_tokens")
    list_select_related = ("user",)
    warn_unsaved_form = True
    search_help_text = "Start of the user name, or user id"
    fields = (
        *("user", "prompt_template", "system"),
        *("provider", "model", "max_tokens", "log_content"),
    )

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return (f"user__{get_user_model().USERNAME_FIELD}__startswith", "user__pk__exact")

    def get_readonly_fields(
        self, request: HttpRequest, obj: Profile | None = None
    ) -> tuple[str, ...]:
        # The user is the primary key, so saving with another user would make a second profile.
        return ("user",) if obj else ()

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        profile = context.get("original")
        if profile is not None and request.method == "GET":
            try:
                Offer(conf.load()).choose(profile.provider, profile.model)
            except ModelNotAllowed as error:
                messages.warning(
                    request,
                    f"{error}. Choose one of these: until then, each request for this user that"
                    " names no other is refused with status 422.",
                )
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="prompt template")
    def template_excerpt(self, profile: Profile) -> SafeString:
        return columns.excerpt(profile.prompt_template)
