"""A transcript makes the same answer of its events however they are cut."""

from __future__ import annotations

from hypothesis import given

from generation.events import Event, Start, TextDelta, ThinkingDelta, joined
from generation.llm.transcript import Transcript
from tests.support.dialects import PROMPT
from tests.support.pieces import ANSWERS, spelled


@given(ANSWERS)
def test_joined_events_are_the_same_answer_and_leave_the_same_row(answer):
    answer.insert(0, Start("a-model"))
    whole, fewer = (
        Transcript(events=events, has_extras=True) for events in (answer, joined(answer))
    )
    assert spelled(fewer.events) == spelled(whole.events), "its positions are in characters"
    assert fewer.text == whole.text
    assert fewer.blocks() == whole.blocks()
    assert fewer.estimated_usage(PROMPT) == whole.estimated_usage(PROMPT)


def test_a_projects_own_kind_of_event_is_not_joined():
    class Cited(TextDelta):
        """It may need more than a text."""

    answer: list[Event] = [
        Cited("a"),
        Cited("b"),
        TextDelta("c"),
        TextDelta("d"),
        ThinkingDelta("e"),
    ]
    assert joined(answer) == [Cited("a"), Cited("b"), TextDelta("cd"), ThinkingDelta("e")]
