"""The admin: what it shows, and what it costs a large table."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from generation.admin import pagination as keyset
from generation.admin.logs import first_id
from generation.models import GenerationLog, Profile, UsageLog

User = get_user_model()
Status = GenerationLog.Status

LOGS = "/admin/generation/generationlog/"
PROFILES = "/admin/generation/profile/"
USAGE = "/admin/generation/usagelog/"
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

pytestmark = [
    pytest.mark.usefixtures("committed"),
    # Unfold 0.110 overrides it as Django 6.0 knew it.
    pytest.mark.filterwarnings("ignore:Overriding get_action_choices"),
]


def make_id(moment: datetime) -> UUID:
    return UUID(int=first_id(moment).int | 7 << 76 | uuid4().int & 0xFFF_3FFFFFFFFFFFFFFF)


def make_log(minutes_ago: float = 0, **values) -> GenerationLog:
    moment = NOON - timedelta(minutes=minutes_ago)
    return GenerationLog(
        **{
            "id": make_id(moment + timedelta(seconds=5)),
            "user_id": 1,
            "prompt": "A prompt.",
            "result": "A result.",
            "provider": "anthropic",
            "model": "claude-sonnet-5-5",
            "input_tokens": 10,
            "output_tokens": 20,
            "total_tokens": 30,
            "status": Status.SUCCEEDED,
            "latency_ms": 5004,
            "llm_latency_ms": 5000,
            "request_id": str(uuid4()),
            "created_at": moment,
            **values,
        }
    )


def save_log(minutes_ago: float = 0, **values) -> GenerationLog:
    log = make_log(minutes_ago, **values)
    log.save(force_insert=True)
    return log


def save_logs(count: int, **values) -> list[GenerationLog]:
    """Newest first."""
    return GenerationLog.objects.bulk_create(make_log(n, **values) for n in range(count))


@pytest.fixture
def user(committed):
    """User 1."""
    return User.objects.create(username="user1")


@pytest.fixture
def short_pages(monkeypatch):
    """Ten rows each."""
    monkeypatch.setattr(admin.site.get_model_admin(GenerationLog), "list_per_page", 10)


@pytest.fixture
def staff(user) -> Client:
    """May see and do all."""
    return log_in(User.objects.create_superuser("root"))


def log_in(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def get(client: Client, url: str, **query):
    response = client.get(url, query or None)
    assert response.status_code == 200
    response.html = response.content.decode()
    return response


def find(**query) -> list:
    """The keys of the rows that the list of logs would show."""
    model_admin = admin.site.get_model_admin(GenerationLog)
    changelist = model_admin.get_changelist_instance(RequestFactory().get(LOGS, query))
    return [row.pk for row in changelist.result_list]


def shown(response) -> list:
    """The keys of the rows of a list."""
    return [row.pk for row in response.context["cl"].result_list]


def keys(logs) -> list:
    return [log.pk for log in logs]


def follow(client: Client, response, rel: str):
    """The page that the list's own link leads to."""
    href = re.search(rf'href="([^"]+)" rel="{rel}"', response.html).group(1)
    return get(client, LOGS, **parse_qs(urlsplit(unescape(href)).query))


def row_html(response, log: GenerationLog) -> str:
    rows = response.html.split("<tbody")
    return next(row for row in rows if str(log.pk) in row)


# --- a list of a large table -----------------------------------------------------------------


def test_a_page_of_100_rows_costs_no_query_per_row_and_counts_nothing(staff):
    save_logs(5)
    with CaptureQueriesContext(connection) as few:
        get(staff, LOGS)
    others = User.objects.bulk_create(User(username=f"other{n}") for n in range(50))
    GenerationLog.objects.bulk_create(
        make_log(-n, user_id=n if n % 2 else others[n // 2].pk) for n in range(1, 100)
    )
    with CaptureQueriesContext(connection) as many:
        response = get(staff, LOGS)
    assert len(shown(response)) == 100
    assert len(many) == len(few)
    assert not [query["sql"] for query in many if "COUNT(" in query["sql"].upper()]
    assert not [query["sql"] for query in many if "OFFSET" in query["sql"].upper()]


def test_the_long_texts_of_a_list_stay_in_the_database(staff):
    save_log(prompt="p" * 10_000, result="r" * 10_000)
    with CaptureQueriesContext(connection) as queries:
        response = get(staff, LOGS)
    assert "pppp" in response.html
    assert "p" * 1000 not in response.html
    page = [query["sql"] for query in queries if "prompt" in query["sql"]]
    assert len(page) == 1
    assert '"result"' not in page[0]


def test_older_and_newer_lead_through_every_row_once(staff, short_pages):
    logs = save_logs(25)
    pages = [get(staff, LOGS)]
    pages += [follow(staff, pages[-1], "next")]
    pages += [follow(staff, pages[-1], "next")]
    assert [key for page in pages for key in shown(page)] == keys(logs)
    assert 'rel="prev"' not in pages[0].html
    assert 'rel="next"' not in pages[2].html
    assert shown(follow(staff, pages[2], "prev")) == shown(pages[1])
    assert shown(follow(staff, pages[1], "prev")) == shown(pages[0])


def test_rows_that_arrive_shift_no_page(staff, short_pages):
    logs = save_logs(15)
    first = get(staff, LOGS)
    save_log(minutes_ago=-1)
    assert shown(follow(staff, first, "next")) == keys(logs[10:])


def test_newer_than_nearly_the_newest_is_a_full_first_page(staff, short_pages):
    logs = save_logs(15)
    assert shown(get(staff, LOGS, p=f"after:{logs[3].pk}")) == keys(logs[:10])


def test_pages_keep_the_filters(staff, short_pages):
    save_logs(15)
    failed = save_logs(15, status=Status.FAILED)
    first = get(staff, LOGS, status="failed")
    assert shown(follow(staff, first, "next")) == keys(failed[10:])


def test_a_filter_starts_at_the_newest_row(staff, short_pages):
    save_logs(15)
    second = follow(staff, get(staff, LOGS), "next")
    assert 'name="p"' not in second.html


def test_the_order_is_that_of_the_key_whatever_is_asked(staff):
    logs = save_logs(3)
    assert shown(get(staff, LOGS, o="-2.4")) == keys(logs)


@pytest.mark.parametrize(
    "query",
    [{"p": "before:zzz"}, {"p": "after:"}, {"model": "\0"}, {"provider": "a\0b"}],
)
def test_a_wrong_address_is_refused_kindly(staff, query):
    save_logs(1)
    response = staff.get(LOGS, query)
    assert (response.status_code, response["location"]) == (302, f"{LOGS}?e=1")


@pytest.mark.parametrize("p", ["3", "", "sideways:1"])
def test_a_page_without_a_place_is_the_first(staff, p):
    logs = save_logs(3)
    assert shown(get(staff, LOGS, p=p)) == keys(logs)


def test_a_page_that_takes_too_long_is_given_up_and_says_so(staff, monkeypatch):
    save_logs(1)
    monkeypatch.setattr(keyset, "TIME_LIMIT_MS", 1)
    model_admin = admin.site.get_model_admin(GenerationLog)
    slow = GenerationLog.objects.extra(where=["pg_sleep(60) IS NOT NULL"])
    monkeypatch.setattr(model_admin, "get_queryset", lambda _: slow)
    response = get(staff, LOGS)
    assert shown(response) == []
    assert "Narrow the list" in response.html


# --- filters and search ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("status", "timed_out", "succeeded"),
        ("provider", "openai", "anthropic"),
        ("model", "gpt-6-luna", "claude-sonnet-5-5"),
    ],
)
def test_a_filter_finds_what_it_names(name, value, other):
    wanted = save_log(**{name: value})
    save_log(minutes_ago=1, **{name: other})
    assert find(**{name: value}) == [wanted.pk]


def test_the_choices_come_from_the_newest_rows_and_the_one_chosen(staff, monkeypatch):
    monkeypatch.setattr("generation.admin.logs.SAMPLE", 2)
    for age, model in enumerate(["new-model", "new-model", "old-model"]):
        save_log(minutes_ago=age, model=model)

    def choices(**query) -> list[str]:
        spec = get(staff, LOGS, **query).context["cl"].filter_specs[2]
        return [value for value, _ in spec.lookup_choices]

    assert choices() == ["new-model"]
    assert choices(model="old-model") == ["new-model", "old-model"]


def in_range(**parts: str) -> list:
    return find(**{f"created_at_{part}": text for part, text in parts.items()})


@pytest.mark.parametrize(
    ("parts", "ages"),
    [
        ({"from_0": "2026-01-31"}, [0, 60, 720]),
        ({"from_0": "2026-01-31", "from_1": "11:00"}, [0, 60]),
        ({"from_0": "2026-01-31", "from_1": "11:00:01"}, [0]),
        ({"to_0": "2026-01-30"}, [721, 1441]),
        ({"to_0": "2026-01-31", "to_1": "12:00"}, [60, 720, 721, 1441]),
        ({"from_0": "2026-01-30", "to_0": "2026-01-30"}, [721, 1441]),
        ({"from_1": "11:00"}, [0, 60, 720, 721, 1441]),
        ({"from_0": "9999-12-31"}, []),
        ({"to_0": "0001-01-01"}, []),
    ],
)
def test_a_range_is_from_a_moment_to_before_another(parts, ages):
    logs = {age: save_log(minutes_ago=age) for age in (0, 60, 720, 721, 1441)}
    assert in_range(**parts) == [logs[age].pk for age in ages]


def test_a_range_holds_requests_that_took_an_hour():
    arrived = NOON - timedelta(hours=1)
    slow = save_log(minutes_ago=60, id=make_id(arrived + timedelta(minutes=61)))
    assert in_range(to_0="2026-01-31", to_1="11:01") == [slow.pk]


def test_a_range_is_searched_through_the_key():
    with CaptureQueriesContext(connection) as queries:
        in_range(from_0="2026-01-30", to_0="2026-01-30")
    page = next(query["sql"] for query in queries if "created_at" in query["sql"])
    assert '"generation_generationlog"."id" >=' in page
    assert '"generation_generationlog"."id" <' in page


@pytest.mark.parametrize("side", ["from", "to"])
@pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "\0"])
def test_a_date_that_is_none_is_told(staff, side, day):
    assert "not understood" in get(staff, LOGS, **{f"created_at_{side}_0": day}).html


@pytest.mark.parametrize("parts", [{"from_0": "0001-01-01"}, {"to_0": "9999-12-31"}])
def test_a_date_at_the_end_of_time_is_told(staff, parts):
    query = {f"created_at_{part}": text for part, text in parts.items()}
    assert "not understood" in get(staff, LOGS, **query).html


def test_search_finds_a_log_by_its_id():
    wanted, _ = save_logs(2)
    assert find(q=str(wanted.pk)) == [wanted.pk]
    assert find(q=f" {wanted.pk.hex.upper()} ") == [wanted.pk]


@pytest.mark.parametrize(
    "request_id", ["checkout-17", "1", "user1", "a b", "00000000-0000-4000-8000-000000000001"]
)
def test_search_finds_logs_by_request_id(user, request_id):
    save_log(minutes_ago=1)
    wanted = save_log(request_id=request_id)
    assert find(q=request_id) == [wanted.pk]


@pytest.mark.parametrize("term", ["17", "0017", "eve"])
def test_search_finds_logs_by_user(term):
    User.objects.create(pk=17, username="eve")
    save_log(minutes_ago=1)
    wanted = save_log(user_id=17)
    assert find(q=term) == [wanted.pk]


def test_search_finds_logs_of_a_deleted_user_by_id():
    wanted = save_log(user_id=999)
    assert find(q="999") == [wanted.pk]


@pytest.mark.parametrize("term", ["nobody", "9" * 30, "²", "-1", "%", "prompt", "user", "1.5"])
def test_search_finds_nothing_rather_than_something_like_it(user, term):
    save_log()
    assert find(q=term) == []


@pytest.mark.parametrize("term", ["17", "nobody", "00000000-0000-4000-8000-000000000001"])
def test_search_looks_for_whole_values_only(term):
    with CaptureQueriesContext(connection) as queries:
        find(q=term)
    assert queries.captured_queries
    assert not [query["sql"] for query in queries if "LIKE" in query["sql"]]


# --- what a row shows --------------------------------------------------------------------------


def test_the_row_of_a_deleted_user_shows(staff):
    gone = save_log(user_id=17)
    there = save_log(minutes_ago=1)
    response = get(staff, LOGS)
    assert "deleted user 17" in row_html(response, gone)
    assert "user1" in row_html(response, there)
    assert "deleted user 17" in get(staff, f"{LOGS}{gone.pk}/change/").html


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
    texts = {field: f"{field}: {hostile} the end" for field in fields}
    html = get(staff, f"{LOGS}{save_log(**texts).pk}/change/").html
    for field, text in texts.items():
        found = re.search(rf'data-field="{field}">(.*?)</div>', html, re.DOTALL).group(1)
        assert "<" not in found
        assert unescape(found) == text


def test_no_field_runs_as_markup(staff, user):
    fields = ["model", "provider", "error_type", "stop_reason", "request_id", "prompt"]
    log = save_log(**dict.fromkeys(fields, "<script>x"))
    User.objects.filter(pk=user.pk).update(username="<script>x")
    Profile.objects.create(user=user, prompt_template="<script>x")
    UsageLog.objects.create(user=user, tokens=1, latency_ms=1, created_at=NOON)
    for url in (LOGS, f"{LOGS}{log.pk}/change/", f"{LOGS}?q=<script>x", USAGE, PROFILES):
        html = get(staff, url).html
        assert "&lt;script&gt;x" in html
        assert "<script>x" not in html


def test_attempts_show_as_a_table(staff):
    call = {"provider": "openai", "model": "gpt-6-luna", "status": 529, "error": "<b>", "ms": 812}
    log = save_log(attempts=[call, {**call, "status": None, "error": "", "region": "eu"}])
    html = get(staff, f"{LOGS}{log.pk}/change/").html
    table = re.search(r'<table class="log-table">(.*?)</table>', html, re.DOTALL).group(1)
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", table)]
    assert rows == [
        ["#", "provider", "model", "status", "error", "ms", "region"],
        ["1", "openai", "gpt-6-luna", "529", "&lt;b&gt;", "812", "–"],
        ["2", "openai", "gpt-6-luna", "–", "–", "812", "eu"],
    ]


@pytest.mark.parametrize("attempts", [[], {}, 0, "text", [1, None], [{}]])
def test_attempts_of_any_shape_do_no_harm(staff, attempts):
    log = save_log(attempts=attempts)
    get(staff, f"{LOGS}{log.pk}/change/")


@pytest.mark.parametrize("status", Status.values)
def test_a_status_shows_as_a_label(staff, status):
    log = save_log(status=status)
    assert Status(status).label in row_html(get(staff, LOGS), log)


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


# --- who may do what ---------------------------------------------------------------------------


@pytest.mark.parametrize("url", [LOGS, USAGE])
def test_logs_are_read_only(staff, user, url):
    log = save_log()
    usage = UsageLog.objects.create(user=user, tokens=1, latency_ms=1, created_at=NOON)
    key = log.pk if url == LOGS else usage.pk
    assert staff.get(f"{url}add/").status_code == 403
    assert staff.post(f"{url}{key}/change/", {"prompt": "changed"}).status_code == 403
    assert staff.post(f"{url}{key}/delete/", {"post": "yes"}).status_code == 403
    staff.post(url, {"action": "delete_selected", "_selected_action": str(key), "post": "yes"})
    log.refresh_from_db()
    usage.refresh_from_db()
    assert log.prompt == "A prompt."


def test_only_who_may_view_logs_sees_them(user):
    clerk = User.objects.create(username="clerk", is_staff=True)
    client = log_in(clerk)
    log = save_log()
    assert client.get(LOGS).status_code == 403
    assert client.get(f"{LOGS}{log.pk}/change/").status_code == 403
    index = get(client, "/admin/")
    assert LOGS not in index.html
    assert "newest request" not in index.html

    clerk.user_permissions.add(Permission.objects.get(codename="view_generationlog"))
    assert shown(get(client, LOGS)) == [log.pk]
    get(client, f"{LOGS}{log.pk}/change/")


def test_the_index_tells_how_the_newest_requests_fared(staff, monkeypatch):
    monkeypatch.setattr("generation.admin.dashboard.NEWEST", 4)
    for age, status in enumerate(["failed", "succeeded", "succeeded", "succeeded", "cancelled"]):
        save_log(minutes_ago=age, status=status)
    with CaptureQueriesContext(connection) as queries:
        newest = get(staff, "/admin/").context["newest"]
    assert newest["count"] == 4
    assert [(each["count"], each["percent"]) for each in newest["statuses"]] == [
        (3, "75.0%"),
        (1, "25.0%"),
        (0, "0.0%"),
        (0, "0.0%"),
    ]
    assert sum("generation_generationlog" in query["sql"] for query in queries) == 1


def test_the_index_stands_without_a_log(staff):
    assert "newest request" not in get(staff, "/admin/").html


def test_the_sidebar_leads_to_pages_that_are_there(staff):
    groups = get(staff, "/admin/").context["sidebar_navigation"]
    links = [item["link"] for group in groups for item in group["items"]]
    assert reverse("api-v1:pool") in links
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


# --- profiles and users ------------------------------------------------------------------------


def profile_form(**values) -> dict[str, object]:
    return {"prompt_template": "Say: $input", "system": "", "provider": "", "model": "", **values}


def test_a_profile_is_made_and_edited(staff, user):
    staff.post(f"{PROFILES}add/", profile_form(user=user.pk))
    assert Profile.objects.get(pk=user.pk).prompt_template == "Say: $input"
    response = staff.post(f"{PROFILES}{user.pk}/change/", profile_form(max_tokens=7))
    assert response.status_code == 302
    assert Profile.objects.get(pk=user.pk).max_tokens == 7


@pytest.mark.parametrize("registered", [True, False])
def test_a_profile_s_user_is_never_chosen_from_a_list_of_all(staff, monkeypatch, registered):
    User.objects.create(username="one-of-a-million")
    if not registered:  # as in a project that takes this app and has no admin for users
        monkeypatch.delitem(admin.site._registry, User)
    html = get(staff, f"{PROFILES}add/").html
    assert ("admin-autocomplete" in html) is registered
    assert bool(re.search('<input[^>]*name="user"', html)) is not registered
    assert "one-of-a-million" not in html


def test_a_profile_stays_with_its_user(staff, user):
    other = User.objects.create(username="other")
    Profile.objects.create(user=user, prompt_template="Hello.")
    staff.post(f"{PROFILES}{user.pk}/change/", profile_form(user=other.pk))
    assert list(Profile.objects.values_list("pk", flat=True)) == [user.pk]


@pytest.mark.parametrize(
    ("template", "line"),
    [("$", 1), ("costs 5$", 1), ("one\ntwo $5", 2), ("${input", 1), ("$$$", 1), ("a\n\n${}", 3)],
)
def test_a_dollar_that_names_nothing_is_refused(staff, user, template, line):
    response = get_form_errors(staff, user, prompt_template=template)
    assert response["prompt_template"][0].startswith(f"Line {line} has a $ with no name behind it.")
    assert not Profile.objects.exists()


@pytest.mark.parametrize("template", ["plain", "$$5", "$name and ${other}: $input", "ünï$_x"])
def test_a_template_that_can_be_filled_is_taken(staff, user, template):
    staff.post(f"{PROFILES}add/", profile_form(user=user.pk, prompt_template=template))
    assert Profile.objects.get().prompt_template == template


def test_a_provider_that_is_none_is_refused(staff, user):
    assert "anthropic" in get_form_errors(staff, user, provider="antropic")["provider"][0]


def get_form_errors(client: Client, user, **values) -> dict[str, list[str]]:
    response = client.post(f"{PROFILES}add/", profile_form(user=user.pk, **values))
    assert response.status_code == 200
    return response.context["adminform"].form.errors


@pytest.mark.parametrize("term", ["user1", "1"])
def test_profiles_are_found_by_user(staff, user, term):
    other = User.objects.create(pk=21, username="other")
    for each in (user, other):
        Profile.objects.create(user=each, prompt_template="Hello.")
    with CaptureQueriesContext(connection) as queries:
        assert shown(get(staff, PROFILES, q=term)) == [user.pk]
    assert not [query["sql"] for query in queries if "COUNT(" in query["sql"].upper()]


def test_profiles_can_be_deleted_together(staff, user):
    Profile.objects.create(user=user, prompt_template="Hello.")
    form = {"action": "delete_selected", "_selected_action": str(user.pk), "post": "yes"}
    assert staff.post(PROFILES, form).status_code == 302
    assert not Profile.objects.exists()


@pytest.mark.parametrize(
    "url",
    [
        "/admin/auth/user/",
        "/admin/auth/user/add/",
        "/admin/auth/user/1/change/",
        "/admin/auth/user/1/password/",
        "/admin/auth/group/",
        "/admin/auth/group/add/",
        f"{PROFILES}add/",
        "/admin/autocomplete/?term=user&app_label=generation&model_name=profile&field_name=user",
    ],
)
def test_pages_of_users_open(staff, url):
    assert staff.get(url).status_code == 200


def test_the_admin_bears_the_product_s_name(committed):
    assert "Staccato" in Client().get("/admin/", follow=True).content.decode()
