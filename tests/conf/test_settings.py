"""Settings are typed, strict, and documented; so is each problem type."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from pydantic import ValidationError

from generation import conf, errors
from project import reference
from project.environment import Environment
from project.settings import env
from tests.support.forked import Ended, run

ROOT = Path(__file__).parents[2]


def test_the_recommended_values_are_the_defaults():
    settings = conf.parse({})
    assert (settings.db_pool_size, settings.db_max_overflow, settings.db_pool_timeout) == (
        10,
        20,
        10,
    )
    assert (settings.llm_timeout, settings.llm_max_attempts, settings.llm_max_tokens) == (
        30,
        3,
        1024,
    )
    assert settings.llm_simulated_latency == (2, 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"DB_POOL_SIZE": "ten"}, "DB_POOL_SIZE='ten': "),
        ({"DB_POOL_SIZE": "0"}, "DB_POOL_SIZE='0': .*greater than or equal to 1"),
        ({"DB_POOL_PRE_PING": "maybe"}, "1/0, true/false, yes/no or on/off"),
        ({"MAX_IN_FLIGHT": "-1"}, "STACCATO_MAX_IN_FLIGHT='-1'"),
        ({"LLM_PROVIDER": "oracle"}, "LLM_PROVIDER='oracle': use one of auto, anthropic"),
        ({"LLM_SIMULATED_LATENCY": "8-2"}, "LLM_SIMULATED_LATENCY='8-2': "),
        ({"LLM_SIMULATED_LATENCY": "fast"}, "LLM_SIMULATED_LATENCY='fast': "),
        ({"DB_POOLSIZE": 5}, "DB_POOLSIZE is not a setting of Staccato; is it DB_POOL_SIZE?"),
        ({"STACCATO_MAX_INFLIGHT": 5}, "is it MAX_IN_FLIGHT?"),
        ({"COLOUR": "red"}, "COLOUR is not a setting of Staccato$"),
        ({"LLM_PRICES": "openai:gpt=1"}, "is not provider:model=input/output"),
        ({"LLM_PRICES": "openai:gpt=1/-2"}, "-2 is not between 0 and 1000000 US dollars"),
        ({"LLM_PRICES": "openai:gpt=1/NaN"}, "NaN is not between"),
        ({"LLM_PRICES": "openai:gpt=1/x"}, "x is not a number of US dollars per million"),
        ({"LLM_PRICES": "openai=1/2,openai=1/2"}, "openai is given twice"),
        ({"LLM_PRICES": "oracle:9i=1/2"}, "use provider:model"),
        ({"RATELIMIT_HEADERS": "some"}, "STACCATO_RATELIMIT_HEADERS='some'"),
        ({"LIMIT_WEBHOOK": "ftp://x"}, "must start with http"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "must start with http"),
        (
            {"OTEL_EXPORTER_OTLP_HEADERS": "a=1,b"},
            r"HEADERS=\(hidden\): .*entry 2 is not name=",
        ),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a=%0A"}, "the value of a is not printable ASCII"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a b=1"}, "entry 1 is not name=value"),
        ({"OTEL_TRACES_SAMPLER_ARG": "2"}, "less than or equal to 1"),
        (
            {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "all"},
            "1/0, true/false, yes/no or on/off",
        ),
        ({"LLM_FALLBACKS": "gpt"}, "use provider:model; the providers are anthropic, openai,"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(values, message):
    with pytest.raises(ImproperlyConfigured, match=message) as caught:
        conf.parse(values)
    assert "\n" not in str(caught.value)


def test_a_bad_secret_is_not_quoted():
    with pytest.raises(ImproperlyConfigured) as caught:
        conf.parse({"ANTHROPIC_API_KEY": "sk-canary with spaces"})
    assert "canary" not in str(caught.value)
    assert "ANTHROPIC_API_KEY=(hidden)" in str(caught.value)


def test_settings_are_frozen_and_hide_their_secrets():
    settings = conf.parse({"ANTHROPIC_API_KEY": "sk-canary"})
    assert "canary" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.db_pool_size = 5  # type: ignore[misc]  # mypy knows the law, too


@pytest.mark.parametrize("word", ["1", "true", "YES", "on"])
def test_booleans_read_in_the_usual_words(word):
    assert conf.parse({"DB_ECHO": word}).db_echo is True


@pytest.mark.parametrize(
    ("word", "captures"),
    [("true", True), ("SPAN_ONLY", True), ("false", False), ("no_content", False)],
)
def test_opentelemetrys_words_for_texts_are_read(word, captures):
    name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    assert conf.parse({name: word}).otel_instrumentation_genai_capture_message_content == captures


def test_the_environment_wins_over_the_file_and_empty_is_not_set(tmp_path, monkeypatch):
    file = tmp_path / ".env"
    file.write_text("DB_POOL_SIZE=7\nLLM_TIMEOUT=9\nLLM_MODEL=from-file\n")
    monkeypatch.setenv("DB_POOL_SIZE", "8")
    monkeypatch.setenv("LLM_TIMEOUT", "")
    monkeypatch.delenv("LLM_MODEL", raising=False)
    values = Environment(file).staccato()
    assert values["DB_POOL_SIZE"] == "8"
    assert values["LLM_MODEL"] == "from-file"
    assert "LLM_TIMEOUT" not in values


def in_a_process(command: str, **env: str) -> Ended:
    keep = {"PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "project.settings"}
    return run(*command.split(), env={**keep, **env})


@pytest.mark.served
@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("DB_POOL_SIZE", "many", "many"),
        ("DEBUG", "perhaps", "perhaps"),
        ("DATABASE_URL", "mysql-canary", "(hidden)"),
        ("DATABASE_URL", "postgresql:///canary?port=abc", "its port is not a number"),
        ("DATABASE_URL", "postgresql:///canary?sslmode=canary", "disable, allow, prefer, require"),
        ("DATABASE_URL", "postgresql://u:p@canary@host/db", "as %40"),
        ("ALLOWED_HOSTS", "https://example.org", "use host names"),
        ("CSRF_TRUSTED_ORIGINS", "example.org", "use origins, e.g. https://example.org"),
        ("SECURE_HSTS_SECONDS", "-1", "a whole number"),
    ],
)
def test_a_bad_variable_stops_the_start_with_one_line(name, value, shown):
    ended = in_a_process("manage.py check", **{name: value})
    assert ended.returncode == 1
    lines = ended.output.strip().splitlines()
    assert len(lines) == 1, ended.output
    assert f"{name}=" in lines[0]
    assert shown in lines[0]
    assert "canary" not in lines[0]


@pytest.mark.served
def test_each_misspelt_variable_is_reported_with_what_it_may_mean():
    misspelt = {
        "LLM_MAX_CONCURENCY": "LLM_MAX_CONCURRENCY",
        "DATABSE_URL": "DATABASE_URL",
        "ALLOWED_HOST": "ALLOWED_HOSTS",
        "LOGLEVEL": "LOG_LEVEL",
        "SECRETKEY": "SECRET_KEY",
        "OPENAI_KEY": "OPENAI_API_KEY",
    }
    values = dict.fromkeys(misspelt, "canary")
    ended = in_a_process("manage.py check", **values, OPENAI_ORG_ID="mine")
    for name, meant in misspelt.items():
        assert f"{name} in the environment is not a setting" in ended.output
        assert f"Did you mean {meant}?" in ended.output
    assert "canary" not in ended.output
    assert "OPENAI_ORG_ID" not in ended.output, "other programs have variables, too"


@pytest.mark.served
def test_a_command_without_its_database_ends_with_one_line_and_no_traceback():
    ended = in_a_process("manage.py migrate", DATABASE_URL="postgresql://user@127.0.0.1:1/name")
    assert ended.returncode == 1
    assert "staccato: the database can't be used" in ended.output.splitlines()[-1]
    assert "port 1 failed: Connection refused" in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.served
def test_without_a_key_and_a_database_check_and_collectstatic_still_work():
    assert in_a_process("manage.py check").returncode == 0
    assert in_a_process("manage.py collectstatic --dry-run --noinput").returncode == 0


@pytest.mark.served
def test_the_documented_production_configuration_passes_the_deploy_checks():
    ended = in_a_process(
        "manage.py check --deploy --fail-level WARNING",
        ANTHROPIC_API_KEY="canary",
        SECRET_KEY="k9" * 30 + "".join(map(chr, range(40, 90))),
        DATABASE_URL="postgresql://user@host/name",
        ALLOWED_HOSTS="example.org",
    )
    assert ended.returncode == 0, ended.output


@pytest.mark.served
@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"DATABASE_URL": "postgresql://user@127.0.0.1:1/name"}, "SECRET_KEY"),
        ({"SECRET_KEY": "k" * 60}, "DATABASE_URL"),
    ],
)
def test_with_debug_off_the_service_refuses_to_open_without_key_or_database(env, named):
    ended = in_a_process("uvicorn project.asgi:application --port 0", **env)
    assert ended.returncode != 0
    assert f"{named} is not set and DEBUG is off" in ended.output
    assert "Traceback" not in ended.output


def test_the_configuration_page_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference.render(env.variables), "run `make docs` and commit the result"


def test_the_api_page_lists_every_problem_and_its_status():
    page = (ROOT / "docs" / "api.md").read_text()
    documented = {
        (status, slug)
        for statuses, slugs in re.findall(r"^\| ([0-9, ]+) \| ([^|]*) \|", page, re.MULTILINE)
        for status in statuses.split(", ")
        for slug in re.findall("`([a-z-]+)`", slugs)
    }
    # No caller gets these.
    unseen = {
        errors.RowRefused,
        errors.ConnectionHeld,
        errors.Unavailable,
        errors.LimitReached,
        errors.LLMError,
        errors.Abandoned,
        errors.AbandonedByClient,
        errors.HeldInTransaction,
        errors.WrongThread,
        errors.OwnCallFailed,
        errors.NoReply,
    }
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.StaccatoError) and kind not in unseen:
            assert (str(kind.status), kind.slug) in documented, f"docs/api.md lacks {kind.slug}"


def test_models_have_names_for_clients():
    settings = conf.parse({"LLM_MODELS": "fast=openai:small, own=anthropic"})
    assert settings.llm_models == {"fast": ("openai", "small"), "own": ("anthropic", "")}
    for value, why in (
        ("fast", "is not name=provider:model"),
        ("fast=nobody:x", "use provider:model"),
        ("a=openai:x,a=openai:y", "given twice"),
        ("a b=openai:x", "up to 100 letters"),
    ):
        with pytest.raises(ImproperlyConfigured, match=why):
            conf.parse({"LLM_MODELS": value})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://gate.example/v1", "https://gate.example"),
        ("https://gate.example/v1/", "https://gate.example"),
        ("https://gate.example/v1/messages", "https://gate.example"),
        ("https://gate.example/anthropic/v1", "https://gate.example/anthropic"),
        ("https://gate.example/anthropic", "https://gate.example/anthropic"),
        ("http://[::1]:8080/v1", "http://[::1]:8080"),
    ],
)
def test_the_address_of_anthropics_api_may_have_its_version(given, meant):
    assert conf.parse({"ANTHROPIC_BASE_URL": given}).anthropic_base_url == meant


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://gate.example/v1/chat/completions", "https://gate.example/v1"),
        ("https://gate.example/openai/v1/", "https://gate.example/openai/v1"),
        ("https://api.openai.com", "https://api.openai.com/v1"),
        ("https://gate.example", "https://gate.example"),
    ],
)
def test_the_address_of_openais_api_may_be_that_of_its_endpoint(given, meant):
    assert conf.parse({"OPENAI_BASE_URL": given}).openai_base_url == meant
