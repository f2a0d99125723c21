"""The admin in a real browser: it works under its policy, and no model's output runs in it."""

from __future__ import annotations

import math
import os
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection

from generation.models import GenerationLog, Profile
from generation.partitions.intervals import first_id
from project.management.commands.seed_demo import PROFILES
from tests.support.admin import make_id, make_log, save, save_log, with_body
from tests.support.partitions import make_room
from tests.support.rollups import catch_up

LOGS = "/admin/generation/generationlog/"
RUN = "window.ran = (window.ran || 0) + 1; alert(1)"
HOSTILE = [
    f"<script>{RUN}</script>",
    f"<img src=x onerror='{RUN}'>",
    f"<svg onload='{RUN}'>",
    f"</div></section><script>{RUN}</script>",
    f"<div x-data x-init='{RUN}'></div>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<a href='javascript:{RUN}'>click</a>",
    f"<body onload='{RUN}'>",
    f"'\"><script>{RUN}</script>",
    "{{ constructor.constructor('" + RUN + "')() }}",
    f"--><script>{RUN}</script><!--",
]


INJECT = """code => {
    window.blocked = 0;
    document.addEventListener("securitypolicyviolation", () => window.blocked++);
    const inline = document.createElement("script");
    inline.textContent = code;
    document.body.append(inline);
    const foreign = document.createElement("script");
    foreign.src = "https://evil.example/x.js";
    document.body.append(foreign);
    const data = document.createElement("script");
    data.src = "data:text/javascript," + encodeURIComponent(code);
    document.body.append(data);
    document.body.insertAdjacentHTML("beforeend", `<img src="data:," onerror="${code}">`);
    const link = document.createElement("a");
    link.href = "javascript:" + code;
    document.body.append(link);
    link.click();
}"""
PASSWORD = "a right one 7"


async def log_in(visitor) -> None:
    """Through the form, as a person does."""
    users = get_user_model().objects
    await sync_to_async(users.create_superuser)("admin", password=PASSWORD, id=50)
    await visitor.open("/admin/")
    await visitor.page.fill("[name=username]", "admin")
    await visitor.page.fill("[name=password]", PASSWORD)
    await visitor.page.press("[name=password]", "Enter")
    await visitor.page.wait_for_url("**/admin/")


async def ran(page) -> int:
    return await page.evaluate("window.ran || 0")


async def test_the_look_is_alive_under_the_policy(watched):
    await sync_to_async(save_log)()
    await watched.open(LOGS)
    await watched.page.set_viewport_size({"width": 800, "height": 900})
    apply = watched.page.get_by_text("Apply", exact=True)
    assert not await apply.is_visible()
    await watched.page.click("label:has-text('Filters')")
    await apply.wait_for(state="visible")
    await watched.open("/api/v1/docs")
    await watched.page.get_by_text("Generate a text for a user").wait_for(state="visible")
    await watched.page.wait_for_load_state("networkidle")
    assert watched.faults == []


async def test_no_output_of_a_model_runs(visitor):
    await log_in(visitor)
    text = "\n".join(HOSTILE)
    log = await sync_to_async(save_log)(
        prompt=text, system=text, result=text, error=text, error_type=HOSTILE[1][:64],
        raw_reply=text, model=HOSTILE[0], stop_reason=HOSTILE[2][:64], request_id=HOSTILE[3],
        attempts=[{"provider": HOSTILE[0], "error": text, HOSTILE[1]: 1}],
    )  # fmt: skip
    for path in ("/admin/", LOGS, f"{LOGS}{log.pk}/change/", f"{LOGS}?q={HOSTILE[0]}"):
        visitor.faults.clear()
        await visitor.open(path)
        assert await ran(visitor.page) == 0, path
        assert visitor.dialogs == [], path
        assert visitor.faults == [], path
    await visitor.open(f"{LOGS}{log.pk}/change/")
    shown = await visitor.page.locator("[data-field=result]").inner_text()
    assert shown.split() == text.split(), "the reviewer sees what the model said"


async def test_what_gets_past_the_escaping_is_stopped_by_the_policy(watched):
    for path in ("/", LOGS, "/api/v1/docs"):
        await watched.open(path)
        await watched.page.evaluate(INJECT, RUN)
        await watched.page.wait_for_function("window.blocked >= 5")
        assert await ran(watched.page) == 0, path
        assert watched.dialogs == [], path


# --- the README's pictures ------------------------------------------------------------------------

INPUTS = {
    2: "The bridge is closed until Friday.",
    3: "The cover arrived bent. What now?",
    4: "Minutes of the board, 14 pages.",
    7: "Well, that was quick. Thank you!",
    9: "SELECT * FROM orders WHERE total > 100 ORDER BY placed_at",
}
LETTER = (
    "Dear Priya,\n\nthank you for telling us, and sorry about the bent cover. Could you send a"
    " photo of it with your order number? We will look at it today and write back.\n\n"
    "Kind regards,\nThe service desk"
)
ATTEMPTS = [
    {"provider": "anthropic", "model": "claude-sonnet-5-5", "status": 529, "error": "overloaded",
     "ms": 168},
    {"provider": "anthropic", "model": "claude-sonnet-5-5", "status": 200, "error": "", "ms": 2822},
]  # fmt: skip
FAILURES = [(529, "llm-overloaded"), (529, "llm-overloaded"), (429, "llm-rate-limited")]
MODELS = [("anthropic", "claude-sonnet-5-5")] * 3 + [
    ("openai", "gpt-6-luna"),
    ("simulated", "simulated-1"),
]


def fill() -> GenerationLog:
    """A morning's logs; returns the one to look at."""
    users = get_user_model()
    for number in range(6, 11):
        users.objects.create(id=number, username=f"user{number}")
    for number in INPUTS:
        template = PROFILES[number]["prompt_template"]
        Profile.objects.update_or_create(pk=number, defaults={"prompt_template": template})
    now = datetime.now(UTC)
    logs = []
    for n in range(130):
        number = (2, 3, 7, 9, 4)[n % 5]
        template = PROFILES[number]["prompt_template"]
        prompt = template.replace("$name", "Priya").replace("$product", "a field guide to mosses")
        prompt = prompt.replace("$ingredients", "eggs, leeks and half a loaf")
        provider, model = MODELS[(n * 7 + n // 5) % 5]
        moment = now - timedelta(seconds=43 * n + (n * 17) % 29)
        values = {
            "status": "succeeded",
            "user_id": 17 if n == 8 else number,
            "prompt": prompt.replace("$input", INPUTS[number]),
            "result": LETTER,
            "provider": provider,
            "model": model,
            "input_tokens": 44,
            "output_tokens": 12 + (n * 13) % 90,
            "total_tokens": 56 + (n * 13) % 90,
            "cost_usd": None if provider == "simulated" else Decimal("0.000132") * (1 + n % 7),
            "latency_ms": 2200 + (n * 811) % 4700,
            "llm_latency_ms": 2195 + (n * 811) % 4700,
            "stop_reason": "end_turn",
            "request_id": f"checkout-{n:05}",
            "created_at": moment,
            "id": make_id(moment + timedelta(seconds=5)),
        }
        if n in {3, 6}:
            fate = {"status": "failed", "error_type": "llm-unreachable"}
            late = {"status": "timed_out", "error_type": "llm-timed-out", "latency_ms": 30_010}
            values |= fate if n == 3 else late
            values |= {"total_tokens": None, "cost_usd": None, "result": ""}
        logs.append(with_body(**values))
    chosen = logs[26]
    chosen.provider, chosen.model, chosen.attempts = "anthropic", "claude-sonnet-5-5", ATTEMPTS
    save(*logs)
    assert chosen.pk > first_id(now - timedelta(days=1))
    return chosen


def fill_fortnight() -> None:
    """Requests of two weeks, more by day than by night, without their texts."""
    chance = random.Random(3)
    now = datetime.now(UTC)
    logs = []
    for _ in range(2500):
        moment = now - timedelta(days=chance.uniform(0.1, 14))
        if chance.random() > 0.6 + 0.4 * math.sin((moment.hour - 8) * math.pi / 12):
            continue
        provider, model = MODELS[chance.randrange(4)]
        tokens = int(chance.lognormvariate(6, 0.7))
        took = int(chance.lognormvariate(8.3, 0.4))
        log = make_log(
            id=make_id(moment),
            created_at=moment,
            user_id=chance.choice([2, 2, 2, 3, 3, 4, 7, 9]),
            provider=provider,
            model=model,
            input_tokens=tokens,
            output_tokens=tokens // 3,
            total_tokens=tokens + tokens // 3,
            cost_usd=Decimal(tokens) / 80_000,
            latency_ms=took + 4,
            llm_latency_ms=took,
            attempts=[{"provider": provider, "model": model, "status": 200, "error": "", "ms": 1}],
        )
        if chance.random() < 0.04:
            status, kind = chance.choice(FAILURES)
            log.status, log.error_type, log.cost_usd = "failed", kind, None
            log.attempts[0]["status"] = status
        logs.append(log)
    with connection.cursor() as cursor:
        make_room(cursor, *(log.created_at for log in logs))
    GenerationLog.objects.bulk_create(logs)


async def test_the_pictures_of_the_readme_can_be_taken(watched, tmp_path):
    """`make screenshots` names docs/ as their place."""
    chosen = await sync_to_async(fill)()
    await sync_to_async(fill_fortnight)()
    await catch_up()
    assert await Profile.objects.aexists()
    folder = Path(os.environ.get("STACCATO_SCREENSHOTS") or tmp_path)
    await watched.page.set_viewport_size({"width": 1400, "height": 980})
    for name, path in (
        ("list", LOGS),
        ("detail", f"{LOGS}{chosen.pk}/change/"),
        ("dashboard", f"{LOGS}dashboard/?period=7d"),
        ("errors", f"{LOGS}errors/?period=7d"),
    ):
        await watched.open(path)
        await watched.page.evaluate("document.fonts.ready")
        await watched.page.mouse.move(700, 60)
        picture = folder / f"admin-{name}.png"
        await watched.page.screenshot(path=picture)
        assert picture.stat().st_size > 20_000
