"""What an attempt reserved comes back only on proof that nothing was spent."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from generation.conversation import Image, Message, Text
from generation.errors import LLMError
from generation.limits import estimates
from generation.limits.amounts import parse_amount
from generation.limits.ledger import Ledger, Short
from generation.limits.meter import Meter
from generation.limits.rules import Rule
from generation.limits.terms import Caller
from generation.llm.policy import stream_broken, to_error
from generation.records import Finding, Prompt, Reply, Usage

PROMPT = Prompt("x" * 136, "", "openai", "gpt", 100)  # 68 + 2 frames of 16 = 100 tokens
TOKENS = Rule(1, "key", "7", "", "", "tokens", 10**9, "month")
MONEY = Rule(2, "key", "7", "", "", "usd", 10**15, "month")
CALLS = Rule(3, "key", "7", "", "", "requests", 10**6, "month")
AT_ONCE = Rule(4, "key", "7", "", "", "in_flight", 10)
PRICES = {"gpt": 1, "dear": 100}  # thousandths of a dollar a token


class Price:
    is_free = False

    def __init__(self, rate):
        self.rate = rate

    def most(self, given, made):
        return (given + made) * self.rate * 10**6

    def charge(self, usage):
        return self.most(0, usage.total_tokens)


class Prices:
    def price(self, _provider, model, _asked=""):
        return Price(PRICES[model]) if model in PRICES else None


@pytest.fixture
def ledger():
    """Everything that it is asked for was granted before."""
    made = Ledger(None, None, ttl_s=60)
    for rule in (TOKENS, MONEY, CALLS, AT_ONCE):
        block = made.block(rule, "")
        block.granted = block.free = 10**15
        block.answered_at, block.good_until, block.lease = 0.0, float("inf"), rule.id
    return made


async def begun(ledger, prompt=PROMPT):
    rules = tuple((rule, "") for rule in (TOKENS, MONEY, CALLS, AT_ONCE))
    caller, now = Caller(rules, ledger, Prices()), time.monotonic()
    meter = Meter(caller, caller.terms("openai", "gpt", now), prompt)
    assert meter.open()
    return meter


def charges_of(meter):
    sums: Counter[int] = Counter()
    for charge in meter.settle():
        sums[charge["lease"]] += charge["amount"]
    return sums


def of(status=None, finding=Finding.FAILED, partial=None):
    return to_error(finding, "no", status_code=status, partial=partial)


def torn(usage):
    return stream_broken("torn", status_code=200, partial=Reply("a", usage, ""))


ALL = (200, 200 * 10**6, 1)
NOTHING_BUT_A_REQUEST = (0, 0, 1)
NOTHING = (0, 0, 0)
ENDINGS = {
    "connection refused": (of(finding=Finding.UNREACHABLE), NOTHING),
    "the circuit is open": (of(finding=Finding.PAUSED), NOTHING),
    "the queue is full": (of(finding=Finding.BUSY), NOTHING),
    **{
        f"status {status}": (of(status), NOTHING_BUT_A_REQUEST)
        for status in (400, 401, 404, 429, 500, 503, 529)
    },
    "closed without an answer": (of(), ALL),
    "timed out": (of(finding=Finding.TIMED_OUT), ALL),
    "status 200, unreadable": (of(200, Finding.UNREADABLE), ALL),
    "a stream torn before its usage": (torn(Usage(3, 4, is_estimated=True)), ALL),
    "a stream torn after its usage": (torn(Usage(3, 4)), (7, 7 * 10**6, 1)),
    "usage": (Usage(3, 4), (7, 7 * 10**6, 1)),
    "more than was reserved": (Usage(300, 400), (700, 700 * 10**6, 1)),
    "no usage": (Usage(None, None), ALL),
    "a usage of nothing": (Usage(0, 0), ALL),
    "cancelled": (None, ALL),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_call_is_charged_for_what_it_may_have_cost(ledger, ending):
    came, (tokens, usd, calls) = ENDINGS[ending]
    meter = await begun(ledger)
    meter.sent("openai", "gpt")
    if isinstance(came, Usage):
        meter.answered("gpt", came)
    elif isinstance(came, LLMError):
        meter.failed(came)
    charges = charges_of(meter)
    meter.release()
    expected = {TOKENS.id: tokens, MONEY.id: usd, CALLS.id: calls}
    assert charges == {lease: amount for lease, amount in expected.items() if amount}
    assert meter.is_assumed == ((tokens, usd, calls) == ALL)
    for rule in (TOKENS, MONEY, CALLS, AT_ONCE):
        block = ledger.block(rule, "")
        assert (block.reserved, block.spent) == (0, charges.get(rule.id, 0)), rule.unit


async def test_each_attempt_that_may_have_spent_keeps_its_part(ledger):
    meter = await begun(ledger)
    for _ in range(3):
        assert await meter.extend("openai", "gpt")
        meter.sent("openai", "gpt")
        meter.failed(of(finding=Finding.TIMED_OUT))
    assert await meter.extend("openai", "gpt")
    meter.sent("openai", "gpt")
    meter.answered("gpt", Usage(1, 1))
    charges = charges_of(meter)
    assert charges == {TOKENS.id: 602, MONEY.id: 602 * 10**6, CALLS.id: 1}


async def test_a_fallback_that_is_not_covered_is_not_called(ledger):
    meter = await begun(ledger)
    meter.sent("openai", "gpt")
    meter.failed(of(503))
    money = ledger.block(MONEY, "")
    money.granted, money.free = money.spent + 300 * 10**6, 300 * 10**6

    async def refuse(needs, since):
        if not ledger.take(needs):
            raise Short(needs[0])

    ledger.reserve = refuse
    assert not await meter.extend("openai", "dear")
    assert not await meter.extend("openai", "without a price")
    assert await meter.extend("openai", "gpt")


async def test_an_answer_by_an_unknown_name_costs_what_the_model_that_was_asked_does(ledger):
    meter = await begun(ledger)
    meter.sent("openai", "gpt")
    meter.answered("gpt-of-tomorrow", Usage(3, 4))
    assert charges_of(meter)[MONEY.id] == 7 * 10**6


async def test_a_call_that_never_began_leaves_nothing(ledger):
    meter = await begun(ledger)
    meter.release()
    meter.release()
    assert [ledger.block(rule, "").reserved for rule in (TOKENS, MONEY, CALLS, AT_ONCE)] == [0] * 4
    assert meter.settle() == ()


def test_a_prompt_is_bounded_by_its_bytes_and_an_image_by_a_number():
    assert estimates.tokens(PROMPT) == (100, 100)
    text = Text("日本" * 50)
    picture = Image(data="A" * 1_000_000)
    prompt = Prompt("", "", "", "", 1, messages=(Message("user", (text, picture)),))
    assert estimates.tokens(prompt)[0] == 150 + 3 * 16 + estimates.IMAGE_TOKENS


@pytest.mark.parametrize("text", ["-1", "NaN", "1e400", "1,5", "", "0x10", "9" * 19, "1.5.5", "٣"])
def test_what_is_no_amount_is_refused(text):
    for unit in ("usd", "tokens"):
        with pytest.raises(ValueError, match="is not"):
            parse_amount(text, unit)


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("20", "usd", 20 * 10**9),
        ("0.5", "usd", 5 * 10**8),
        ("0.000000001", "usd", 1),
        ("0", "tokens", 0),
    ],
)
def test_amounts_are_whole_numbers_of_the_smallest_part(text, unit, amount):
    assert parse_amount(text, unit) == amount
