"""The simulated provider: plausible, and as unruly as its settings ask."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise

from generation.conf import parse
from generation.conversation import Options, Tool
from generation.llm.client import LLMClient
from generation.pipeline.relay import Relay
from generation.records import Prompt
from tests.support import virtual_time

PROMPT = Prompt("Why is the sky blue?", "Be brief.", "", "", 1024)


def run(work, **settings):
    async def main():
        async with LLMClient.open(parse({"LLM_PROVIDER": "simulated", **settings})) as llm:
            return await work(llm)

    return virtual_time.run(main())


def complete(prompt, **settings):
    return run(lambda llm: llm.complete(prompt), **settings)


def reply_to(prompt, **settings):
    return complete(prompt, **settings).require_reply()


def test_it_says_that_it_is_simulated():
    outcome = complete(PROMPT)
    assert (outcome.provider, outcome.model) == ("simulated", "simulated")
    assert outcome.require_reply().cost_usd is None
    outcome = complete(PROMPT, LLM_MODEL="claude-sonnet-5-5")
    assert outcome.model == "simulated-claude-sonnet-5-5"


def test_its_text_depends_on_the_prompt_alone():
    first = reply_to(PROMPT).text
    assert reply_to(PROMPT).text == first
    texts = {reply_to(replace(PROMPT, text=f"Question {n}")).text for n in range(20)}
    assert len(texts) == 20
    assert "Why is the sky blue?" in first


def test_its_token_counts_are_plausible():
    reply = reply_to(PROMPT)
    assert 5 <= reply.usage.input_tokens <= 12
    assert len(reply.text) / 6 < reply.usage.output_tokens < len(reply.text) / 2


def test_it_stops_at_max_tokens():
    reply = reply_to(replace(PROMPT, max_tokens=5))
    assert reply.stop_reason == "max_tokens"
    assert reply.usage.output_tokens == 5


def test_it_takes_as_long_as_it_is_set_to():
    async def measure(llm):
        clock = asyncio.get_running_loop().time
        times = []
        for _ in range(50):
            began = clock()
            (await llm.complete(PROMPT)).require_reply()
            times.append(clock() - began)
        return times

    times = run(measure, LLM_SIMULATED_LATENCY="2-8")
    assert 2 <= min(times) < 4
    assert 6 < max(times) <= 8.01
    assert all(abs(time - 3) < 0.01 for time in run(measure, LLM_SIMULATED_LATENCY="3"))


def test_it_fails_as_often_as_it_is_set_to():
    async def many(llm):
        outcomes: Counter[str] = Counter()

        async def one():
            error = (await llm.complete(PROMPT)).error
            outcomes["succeeded" if error is None else error.slug] += 1

        for _ in range(40):  # in waves, so that the slow ones don't look like an outage
            await asyncio.gather(*(one() for _ in range(100)))
        return outcomes

    outcomes = run(
        many,
        LLM_SIMULATED_FAULTS="429=0.1,529=0.05,500=0.05,timeout=0.05,malformed=0.05",
        LLM_MAX_ATTEMPTS=1,
    )
    expected = {
        "llm-rate-limited": 400,
        "llm-overloaded": 200,
        "llm-unreachable": 200,
        "llm-timed-out": 200,
        "llm-bad-reply": 200,
    }
    for slug, number in expected.items():
        assert 0.6 * number < outcomes[slug] < 1.4 * number, outcomes
    assert sum(outcomes.values()) == 4000


def stream(prompt, **settings):
    """Returns the outcome, the relay, and when each batch of events was put."""
    relay, times = Relay(), []

    async def work(llm):
        clock = asyncio.get_running_loop().time
        began = clock()
        reader = relay.reader()

        async def watch():
            while await reader.read():
                times.append(clock() - began)

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            outcome = await llm.run(llm.begin(prompt, relay))
            relay.close()
        return outcome

    return run(work, **settings), relay, times


def test_it_streams_words_at_an_even_pace():
    outcome, relay, times = stream(PROMPT, LLM_SIMULATED_LATENCY="4")
    reply = outcome.require_reply()
    assert "".join(getattr(event, "text", "") for event in relay.events) == reply.text
    assert reply == reply_to(PROMPT)
    assert 0.99 < times[0] < 1.01
    assert 3.5 < times[-1] < 4.01
    assert 10 < len(times) <= 41, "each takes a timer"
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert max(gaps) < 2 * min(gaps)


def test_a_stream_can_break_off_or_fall_silent_half_way():
    whole = len(reply_to(PROMPT).text)
    for fault, slug in (("cut", "stream-broken"), ("stall", "stream-idle")):
        outcome, *_ = stream(PROMPT, LLM_SIMULATED_FAULTS=f"{fault}=1")
        assert outcome.error.slug == slug
        assert whole / 3 < len(outcome.reply.text) < whole * 2 / 3
        assert outcome.reply.usage.is_estimated


def test_it_stops_where_it_is_told_and_calls_the_tool_that_it_must():
    stopped = reply_to(replace(PROMPT, options=Options(stop=("asked",))))
    assert (stopped.text, stopped.stop_reason) == ("You ", "stop_sequence")
    tools = replace(PROMPT, tools=(Tool("look", "", {}),), options=Options(tool_choice="required"))
    outcome, relay, _ = stream(tools)
    for reply in (reply_to(tools), outcome.require_reply()):
        assert ([block.name for block in reply.blocks], reply.stop_reason) == (["look"], "tool_use")
    assert relay.events[1].name == "look"


def test_a_prompt_with_a_lone_surrogate_is_survived():
    assert reply_to(replace(PROMPT, text="half \ud83d")).text
