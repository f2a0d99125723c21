"""An outcome becomes a log row, whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from generation.errors import Abandoned, LLMBadReply, LLMUnreachable
from generation.llm.completion import CompletionContext, Outcome
from generation.pipeline import rows
from generation.pipeline.call import GenerationCall
from generation.records import Attempt, GenerationRequest, Prompt, Reply, Usage

CALL = GenerationCall(GenerationRequest(1, "request-1", datetime.now(UTC), 0.0), lambda: None)
PROMPT = Prompt("Why?", "Be brief.", "first", "model-1", 10)
FAILED = Attempt("second", "model-2", None, "cancelled", 5)


def test_a_reply_that_broke_off_leaves_both_its_text_and_its_error():
    reply = Reply("Because", Usage(3, 1), "")
    error = LLMUnreachable("it broke off", raw_reply="raw")
    row = rows.from_outcome(CALL, PROMPT, Outcome(reply, error, "first", "m", ()), 2, 1)
    assert (row.status, row.error_type, row.error) == ("failed", "llm-unreachable", "it broke off")
    assert (row.result, row.total_tokens, row.raw_reply) == ("Because", 4, "raw")
    assert (row.latency_ms, row.llm_latency_ms) == (2000, 1000)


def test_a_failed_row_keeps_the_tokens_that_were_paid_for():
    reply = Reply("", Usage(167, 37), "tool_use", cost_usd=Decimal("0.25"))
    error = LLMBadReply("it has no text")
    row = rows.from_outcome(CALL, PROMPT, Outcome(reply, error, "first", "m", ()), 2, 1)
    assert (row.status, row.input_tokens, row.output_tokens) == ("failed", 167, 37)
    assert (row.total_tokens, row.cost_usd) == (204, Decimal("0.25"))


def test_a_count_that_the_provider_did_not_give_is_unknown_in_the_row():
    outcome = Outcome(Reply("Hi", Usage(9, None), "end_turn"), None, "first", "m", ())
    row = rows.from_outcome(CALL, PROMPT, outcome, 2, 1)
    assert (row.input_tokens, row.output_tokens, row.total_tokens) == (9, None, None)


def test_an_abandoned_completion_names_the_provider_that_was_asked_last():
    context = CompletionContext(PROMPT, "key", 0.0)
    never_asked = context.failed(Abandoned("the client has left"))
    assert (never_asked.provider, never_asked.model) == ("first", "model-1")
    context.attempts.append(FAILED)
    outcome = context.failed(Abandoned("the client has left"))
    row = rows.from_outcome(CALL, PROMPT, outcome, 2, 1)
    assert (row.status, row.provider, row.model) == ("cancelled", "second", "model-2")
    assert row.attempts == (FAILED,)
    assert (row.result, row.total_tokens) == ("", None)
