"""Render the prompt from a profile and a request. Pure."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

from generation.errors import EmptyPrompt, InvalidTemplate, MissingVariable

if TYPE_CHECKING:
    from generation.records import GenerationRequest, Profile


def render(profile: Profile, request: GenerationRequest) -> str:
    """Fill the template: `$name` from variables, `$input` from input, `$$` for a dollar.

    A template without `$input` gets the input appended after a blank line. Raises
    `MissingVariable`, `InvalidTemplate` or `EmptyPrompt`.
    """
    template = Template(profile.prompt_template)
    if "$" not in profile.prompt_template:
        text = profile.prompt_template
        takes_input = False
    else:
        try:
            takes_input = "input" in template.get_identifiers()
            text = template.substitute({**request.variables, "input": request.input})
        except KeyError as missing:
            raise MissingVariable(
                f"the prompt template needs the variable {missing.args[0]!r}; set it in `variables`"
            ) from None
        except ValueError:
            raise InvalidTemplate(
                "the user's prompt template contains a `$` that starts neither a name nor `$$`"
            ) from None
    if request.input and not takes_input:
        text = f"{text}\n\n{request.input}" if text.strip() else request.input
    if not text.strip():
        raise EmptyPrompt("the prompt is empty: provide `input`, or fill in the user's template")
    return text


def template_fault(text: str) -> str:
    """Returns what keeps a template from being filled, as a sentence; '' if nothing does."""
    for match in Template.pattern.finditer(text):
        if match["invalid"] is not None:
            line = text.count("\n", 0, match.start()) + 1
            return (
                f"Line {line} has a $ without a name. Write $$ for a dollar sign, $input for"
                " the request's input, and $name or ${name} for a variable."
            )
    return ""
