"""The pages of a log: what they show, and who may do what."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import strip_tags

from generation.conversation import (
    Image,
    Message,
    Options,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    dump_blocks,
    dump_conversation,
)
from generation.models import GenerationLog, Profile, UsageLog
from tests.support.admin import LOGS, NOON, PROFILES, USAGE, get, log_in, row_html, save_log, shown

User = get_user_model()
Status = GenerationLog.Status


pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


# --- what a row shows -----------------------------------------------------------------------------


def test_the_row_of_a_deleted_user_shows(staff):
    gone = save_log(user_id=17)
    there = save_log(minutes_ago=1)
    response = get(staff, LOGS)
    assert "deleted user 17" in row_html(response, gone)
    assert "user1" in row_html(response, there)
    assert "deleted user 17" in get(staff, f"{LOGS}{gone.pk}/change/").html


def test_the_row_of_nobody_in_particular_shows(staff):
    row = save_log(user_id=None)
    assert "deleted user" not in row_html(get(staff, LOGS), row)
    assert "deleted user" not in get(staff, f"{LOGS}{row.pk}/change/").html


def test_deleting_a_user_leaves_the_logs(staff, user):
    log = save_log()
    UsageLog.objects.create(user=user, tokens=1, latency_ms=1, created_at=NOON)
    response = staff.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"})
    assert response.status_code == 302
    assert not User.objects.filter(pk=user.pk).exists()
    assert shown(get(staff, LOGS)) == [log.pk]
    assert "deleted user 1" in get(staff, USAGE).html


def test_texts_show_at_full_length_and_run_nothing(staff):
    fields = ["prompt", "result", "system", "error", "raw_reply"]
    hostile = "<script>alert(1)</script>\n\n    {{ settings }} " + "ü & " * 20_000
    texts: dict[str, Any] = {field: f"{field}: {hostile} the end" for field in fields}
    html = get(staff, f"{LOGS}{save_log(**texts).pk}/change/").html
    for field, text in texts.items():
        found = re.search(rf'data-field="{field}">(.*?)</div>', html, re.DOTALL).group(1)
        assert "<" not in found
        assert unescape(found) == text


def test_a_conversation_shows_who_says_what(staff):
    image = Image(data="AAAA", media_type="image/png")
    messages = [
        Message("user", (Text("What is this?"), image)),
        Message("assistant", (Thinking("Hm."), ToolUse("t1", "look", '{"at": 1}'))),
        Message("user", (ToolResult("t1", (Text("a <cat>"),)),)),
    ]
    tool = Tool("look", "Looks.", {"type": "object"})
    log = save_log(
        conversation=dump_conversation(messages, [tool], Options(temperature=0.0)),
        blocks=dump_blocks([Text("A cat."), ToolUse("t2", "purr", "{}")]),
        is_streamed=True,
        first_token_ms=1234,
        is_estimated=True,
    )
    html = get(staff, f"{LOGS}{log.pk}/change/").html
    turns = [
        part.split('<dd class="log-text')
        for part in html.split("<dt>")
        if 'dd class="log-text' in part
    ]
    assert [
        (strip_tags(who), unescape(text.partition(">")[2].partition("</dd>")[0]).split(",")[0])
        for who, text in turns
    ] == [
        ("user", "What is this?"),
        ("user image", "3 bytes of image/png"),
        ("thinking", "Hm."),
        ("tool call t1", 'look({"at": 1})'),
        ("tool result t1", "a <cat>"),
        ("available tool: look", 'Looks.\n{\n  "type": "object"\n}'),
        ("options", '{\n  "temperature": 0.0\n}'),
        ("text", "A cat."),
        ("tool call t2", "purr({})"),
    ]
    assert "1,234 ms" in html
    assert "20 out, estimated" in html


@pytest.mark.parametrize("kept", ["hmac-sha256:00ff", ""])
def test_a_conversation_that_was_not_kept_does_no_harm(staff, kept):
    log = save_log(conversation=kept, blocks=kept)
    assert kept in get(staff, f"{LOGS}{log.pk}/change/").html


def test_no_field_runs_as_markup(staff, user):
    fields = ["model", "provider", "error_type", "stop_reason", "request_id", "prompt"]
    hostile: dict[str, Any] = dict.fromkeys(fields, "<script>x")
    log = save_log(**hostile)
    User.objects.filter(pk=user.pk).update(username="<script>x")
    Profile.objects.create(user=user, prompt_template="<script>x")
    UsageLog.objects.create(user=user, tokens=1, latency_ms=1, created_at=NOON)
    for url in (LOGS, f"{LOGS}{log.pk}/change/", f"{LOGS}?q=<script>x", USAGE, PROFILES):
        html = get(staff, url).html
        assert "&lt;script&gt;x" in html
        assert "<script>x" not in html


def test_what_is_known_of_each_attempt_stands_beside_its_bar(staff):
    call = {
        "provider": "openai",
        "model": "gpt-6-luna",
        "status": 529,
        "error": "<b>",
        "ms": 812,
        "at_ms": 5,
    }
    again = {**call, "status": None, "error": "", "at_ms": 900, "region": "eu"}
    log = save_log(attempts=[call, again])
    html = get(staff, f"{LOGS}{log.pk}/change/").html
    assert re.findall(r'fall-label">(.+?) <span class="log-aside">(.+?)</span>', html) == [
        ("Before the LLM", "4 ms"),
        ("openai:gpt-6-luna", "812 ms, begun at 9 ms · HTTP 529 · &lt;b&gt;"),
        ("openai:gpt-6-luna", "812 ms, begun at 904 ms · no HTTP status · region eu"),
    ]


@pytest.mark.parametrize("attempts", [[], {}, 0, "text", [1, None], [{}]])
def test_attempts_of_any_shape_do_no_harm(staff, attempts):
    log = save_log(attempts=attempts)
    get(staff, f"{LOGS}{log.pk}/change/")


@pytest.mark.parametrize("status", Status.values)
def test_a_status_shows_as_a_label(staff, status):
    log = save_log(status=status)
    assert Status(status).label in row_html(get(staff, LOGS), log)


def test_a_generation_whose_client_left_is_no_error(staff):
    why = "the client left before the LLM answered"
    log = save_log(status=Status.CANCELLED, result="", error_type="abandoned", error=why)
    html = get(staff, f"{LOGS}{log.pk}/change/").html
    assert why in html
    assert ">Cancelled</h2>" in html.replace("\n", "")
    assert "log-error" not in html
    assert "abandoned" not in html
    failed = save_log(1, status=Status.FAILED, error_type="llm-unreachable", error="no answer")
    assert "log-error" in get(staff, f"{LOGS}{failed.pk}/change/").html


def test_what_is_not_known_shows_as_such(staff):
    nothing = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens", "cost_usd"))
    log = save_log(status=Status.CANCELLED, result="", **nothing)
    assert "None" not in row_html(get(staff, LOGS), log)
    html = get(staff, f"{LOGS}{log.pk}/change/").html
    assert "None" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert 'data-field="result"' not in html


@pytest.mark.parametrize(("cost", "text"), [("0.000000003", "$0.000000003"), ("12.5", "$12.5")])
def test_a_cost_shows_to_its_last_digit(staff, cost, text):
    log = save_log(cost_usd=cost)
    assert f"<dd>{text}</dd>" in get(staff, f"{LOGS}{log.pk}/change/").html


# --- who may do what ------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [LOGS, USAGE])
def test_logs_are_read_only(staff, user, url):
    log = save_log()
    usage = UsageLog.objects.create(user=user, tokens=1, latency_ms=1, created_at=NOON)
    key = log.pk if url == LOGS else usage.pk
    assert staff.get(f"{url}add/").status_code == 403
    assert staff.post(f"{url}{key}/change/", {"prompt": "changed"}).status_code == 403
    assert staff.post(f"{url}{key}/delete/", {"post": "yes"}).status_code == 403
    staff.post(url, {"action": "delete_selected", "_selected_action": str(key), "post": "yes"})
    log.body.refresh_from_db()
    usage.refresh_from_db()
    assert log.body.prompt == "A prompt."


def test_only_who_may_view_logs_sees_them(user):
    clerk = User.objects.create(username="clerk", is_staff=True)
    client = log_in(clerk)
    log = save_log()
    assert client.get(LOGS).status_code == 403
    assert client.get(f"{LOGS}{log.pk}/change/").status_code == 403
    index = get(client, "/admin/")
    assert LOGS not in index.html
    assert "The last 24 hours" not in index.html

    clerk.user_permissions.add(Permission.objects.get(codename="view_generationlog"))
    assert shown(get(client, LOGS)) == [log.pk]
    get(client, f"{LOGS}{log.pk}/change/")


def test_the_sidebar_leads_to_pages_that_are_there(staff):
    groups = get(staff, "/admin/").context["sidebar_navigation"]
    links = [item["link"] for group in groups for item in group["items"]]
    assert reverse("staccato:pool") in links
    for link in links:
        if link.startswith("/admin/"):
            get(staff, link)


def test_what_logs_lists_usage_lists_too(staff, user):
    UsageLog.objects.bulk_create(
        UsageLog(user=user, tokens=n, latency_ms=1500, created_at=NOON) for n in range(101)
    )
    with CaptureQueriesContext(connection) as queries:
        response = get(staff, USAGE)
    assert len(shown(response)) == 100
    assert shown(response) == sorted(shown(response), reverse=True)
    assert not [query["sql"] for query in queries if "COUNT(" in query["sql"].upper()]
