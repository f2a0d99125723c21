import pytest

from generation.errors import EmptyPrompt, InvalidTemplate, MissingVariable
from generation.pipeline import prompts
from generation.records import GenerationRequest, Profile


def render(template: str, text: str = "", **variables: str) -> str:
    request = GenerationRequest(
        user_id=1, request_id="r", arrived_at=None, started=0, input=text, variables=variables
    )
    return prompts.render(Profile(1, template, "", "", "", None), request)


@pytest.mark.parametrize(
    ("template", "text", "variables", "prompt"),
    [
        ("Hello.", "", {}, "Hello."),
        ("Hello.", "world", {}, "Hello.\n\nworld"),
        ("", "world", {}, "world"),
        ("Say $input!", "hi", {}, "Say hi!"),
        ("Say ${input}s", "hi", {}, "Say his"),
        ("Say $input!", "", {}, "Say !"),
        ("$a and $b", "", {"a": "1", "b": "2"}, "1 and 2"),
        ("$a", "tail", {"a": "1"}, "1\n\ntail"),
        ("It costs $$5", "", {}, "It costs $5"),
        ("It costs $$5", "tail", {}, "It costs $5\n\ntail"),
        ("{0} {x.__class__}", "", {}, "{0} {x.__class__}"),
        ("$a", "", {"a": "$b $$ ${c}"}, "$b $$ ${c}"),
        ("$input", "x", {"input": "y"}, "x"),
        ("100 % {ok}", "", {}, "100 % {ok}"),
    ],
)
def test_a_template_is_filled_once_and_nothing_in_a_value_is_special(
    template, text, variables, prompt
):
    assert render(template, text, **variables) == prompt


@pytest.mark.parametrize("template", ["", "  \n ", "$a"])
def test_an_empty_prompt_is_refused(template):
    with pytest.raises(EmptyPrompt):
        render(template, a=" ")


def test_a_missing_variable_is_named():
    with pytest.raises(MissingVariable, match="'tone'"):
        render("In a $tone tone", "hi", mood="good")


@pytest.mark.parametrize("template", ["a $ b", "$", "${unclosed", "$5"])
def test_a_lone_dollar_is_the_templates_fault(template):
    with pytest.raises(InvalidTemplate):
        render(template)
