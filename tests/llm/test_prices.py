"""Cost: exact, quick, and null where the price is not known."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from generation import conf
from generation.conf import parse
from generation.llm.client import LLMClient
from generation.llm.prices import Prices, nano
from generation.records import Prompt, Usage
from tests.support.dialects import AnthropicDialect, OpenAIDialect
from tests.support.provider import Ending, Provider, says, streams


@pytest.fixture(scope="module")
def prices():
    return Prices()


def exact(model, provider, usage):
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    tokens = Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    return calc_price(tokens, model, provider_id=provider).total_price


@pytest.mark.parametrize("size", [1, 1000, 40_000, 300_000])
@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-sonnet-5-5"),
        ("anthropic", "claude-haiku-5-5"),
        ("openai", "gpt-6-luna"),
    ],
)
def test_the_cost_is_what_the_table_says(prices, provider, model, size):
    for usage in (Usage(size, size), Usage(size, 0, size // 2), Usage(size, 7, 0, size // 3)):
        assert prices.quote("", provider, model, usage).cost == exact(model, provider, usage)


def test_an_address_is_a_price_list_too(prices):
    usage = Usage(1000, 1000)
    assert prices.quote("", "https://api.openai.com/v1", "gpt-6-luna", usage).cost == exact(
        "gpt-6-luna", "openai", usage
    )


def test_own_prices_count_before_the_table_and_nothing_is_free_unless_they_say_so():
    own = conf.parse({"LLM_PRICES": "openai:gpt=2/10/0.5,openai=0/0"}).llm_prices
    prices = Prices(own, with_table=False)
    usage = Usage(1_000_000, 100_000, cache_read_tokens=400_000)
    assert prices.quote("openai", "openai", "gpt", usage) == (Decimal("2.4"), "2/10/0.5/2")
    assert prices.quote("openai", "openai", "other", usage) == (Decimal(0), "0/0/0/0")
    assert prices.quote("anthropic", "anthropic", "claude-sonnet-5-5", usage) is None


def test_own_prices_of_either_name_of_a_model_count_before_the_table():
    """A provider answers by a longer name than it was asked for, of which the table knows."""
    own = conf.parse({"LLM_PRICES": "openai:gpt-4.1=1/2,openai:o3-2025-04-16=5/6"}).llm_prices
    prices, usage = Prices(own), Usage(1000, 1000)
    for model, asked, price in (
        ("gpt-4.1-2025-04-14", "gpt-4.1", "1/2/1/1"),
        ("o3-2025-04-16", "gpt-4.1", "5/6/5/5"),
        ("never-heard-of", "gpt-4.1-mini", prices.quote("", "openai", "gpt-4.1-mini", usage).price),
    ):
        assert prices.quote("openai", "openai", model, usage, asked).price == price, model


def test_dollars_are_rounded_up_to_whole_billionths():
    assert nano(Decimal("0.0000000001")) == nano(Decimal("0.000000001")) == 1
    assert nano(Decimal(0)) == 0


def test_what_is_charged_is_the_cost_in_billionths(prices):
    for usage in (Usage(1000, 7), Usage(9, 9, 3, 2), Usage(300_000, 5), Usage(1, 1, 1)):
        quote = prices.quote("", "anthropic", "claude-sonnet-5-5", usage)
        charge = prices.find("", "anthropic", "claude-sonnet-5-5").charge(usage)
        assert charge == nano(quote.cost)


def test_the_most_that_a_call_may_cost_is_that_of_input_that_is_written_to_the_cache(prices):
    for size in (1000, 300_000):
        written = exact("claude-sonnet-5-5", "anthropic", Usage(size, 10, cache_write_tokens=size))
        assert written > exact("claude-sonnet-5-5", "anthropic", Usage(size, 10))
        most = prices.find("anthropic", "anthropic", "claude-sonnet-5-5").most(size, 10)
        assert most == written * 10**9
    assert prices.find("anthropic", "anthropic", "never-heard-of") is None


@pytest.mark.parametrize(
    ("price_list", "model"),
    [("anthropic", "never-heard-of"), ("http://localhost:8000/v1", "llama3:8b"), ("", "simulated")],
)
def test_an_unknown_price_is_null_and_not_zero(prices, price_list, model):
    assert prices.quote("", price_list, model, Usage(10, 10)) is None


def test_uncounted_tokens_have_no_cost(prices):
    assert prices.quote("", "anthropic", "claude-sonnet-5-5", Usage(0, 0)) is None


async def test_a_reply_carries_its_cost():
    dialect = AnthropicDialect()
    async with (
        Provider(says(200, dialect.answer())).serve() as server,
        LLMClient.open(parse(dialect.settings(server.url))) as llm,
    ):
        reply = (await llm.complete(Prompt("x", "", "", "", 9))).require_reply()
    assert isinstance(reply.cost_usd, Decimal)
    assert reply.cost_usd == exact("claude-sonnet-5-5", "anthropic", Usage(10, 20))


async def test_a_local_servers_reply_has_no_cost():
    dialect = OpenAIDialect()
    async with (
        Provider(says(200, dialect.answer())).serve() as server,
        LLMClient.open(parse(dialect.settings(server.url))) as llm,
    ):
        reply = (await llm.complete(Prompt("x", "", "", "", 9))).require_reply()
    assert reply.cost_usd is None


@pytest.mark.parametrize("ending", ["whole", "streamed", "torn", "left"])
async def test_an_answer_under_another_name_costs_what_the_name_in_the_request_does(
    streaming, server, dialect, ending
):
    """OpenAI calls `gpt-4.1` `gpt-4.1-2025-04-14` in its answer; servers of one's own do worse."""
    pieces = dialect.stream("Half", "")
    half = pieces[: pieces.index(dialect.delta(""))]
    server.behave = {
        "whole": says(200, dialect.answer()),
        "streamed": streams(*pieces),
        "torn": streams(*half),
        "left": streams(*half, Ending.SILENCE),
    }[ending]
    named = f"{dialect.name}:alias"
    async with streaming(LLM_ALLOWED=named, LLM_PRICES=f"{named}=3/3") as call:
        call.prompt = replace(call.prompt, model="alias")
        if ending == "whole":
            reply = (await call.llm.complete(call.prompt)).reply
        elif ending == "left":
            context, task = call.start()
            await call.until_text("Half")
            task.cancel()
            await asyncio.wait([task])
            reply = context.partial()
        else:
            reply = (await call.outcome()).reply
    assert reply.price == "3/3/3/3"
    assert reply.cost_usd == reply.usage.total_tokens * Decimal("0.000003")
