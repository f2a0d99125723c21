"""The choice of what the log keeps, in the forms of profiles and API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generation import conf
from generation.models import LogContent

if TYPE_CHECKING:
    from generation.admin.theme import ModelForm


def name_service_content(form: ModelForm) -> None:
    """Let the empty choice of `log_content` say what the service keeps."""
    field: Any = form.fields.get("log_content")
    if field is not None:  # a person may only look
        service = f"The service's choice ({conf.load().log_content})"
        field.choices = [("", service), *LogContent.choices]
