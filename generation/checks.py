"""System checks: faults that show before anything is served. The runtime runs them, too."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Concern
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, router

from generation import conf, user_keys
from generation.conf.dotted_paths import load_class
from generation.database import dsn
from generation.llm.providers import registry as providers
from generation.llm.transport import trust
from generation.privacy import redactors
from generation.runtime import server
from generation.runtime.connections import budget as connection_budget
from generation.store.prompt_source import PromptSource

if TYPE_CHECKING:
    from collections.abc import Sequence


@register("staccato")
def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    try:
        fault = "; ".join(providers.faults(conf.load()))
    except ImproperlyConfigured as error:
        fault = str(error)
    return [Error(fault, hint="See settings.STACCATO.", id="staccato.E001")] if fault else []


@register("staccato", deploy=True)
def check_llm(**_kwargs: Any) -> list[CheckMessage]:
    """Made-up answers are for development, unless they are asked for by name."""
    try:
        hot_path = conf.load()
    except ImproperlyConfigured:  # E001 says so
        return []
    if settings.DEBUG or hot_path.llm_provider != "auto":
        return []
    if providers.default_provider(hot_path) != "simulated":
        return []
    return [
        Error(
            "No LLM is configured and DEBUG is off.",
            hint="Set ANTHROPIC_API_KEY or OPENAI_API_KEY, or LLM_PROVIDER=openai with the"
            " OPENAI_BASE_URL of a server of your own; LLM_PROVIDER=simulated invents answers.",
            id="staccato.E006",
        )
    ]


@register("staccato")
def check_unused_providers(**_kwargs: Any) -> list[CheckMessage]:
    try:
        unused = providers.unused(conf.load())
    except ImproperlyConfigured:  # E001 says so
        return []
    return [
        Concern(
            f"{setting} is set, but {name} is never asked.",
            hint=f"Name {name} in LLM_PROVIDER, LLM_ALLOWED, LLM_MODELS or LLM_FALLBACKS.",
            id="staccato.W004",
        )
        for setting, name in unused.items()
    ]


@register("staccato")
def check_certificates(**_kwargs: Any) -> list[CheckMessage]:
    """Without a single authority, every https call would fail."""
    try:
        hot_path = conf.load()
    except ImproperlyConfigured:  # E001 says so
        return []
    urls = {
        "anthropic": hot_path.anthropic_base_url,
        "openai": hot_path.openai_base_url,
    }
    needed = [
        f"{name.upper()}_BASE_URL"
        for name in providers.named_providers(hot_path)
        if urls.get(name, "").startswith("https:")
    ]
    if not needed or trust.has_authorities():
        return []
    return [
        Error(
            f"{' and '.join(needed)} is https, but no CA certificate can be read.",
            hint="Install ca-certificates, or name a bundle with SSL_CERT_FILE.",
            id="staccato.E005",
        )
    ]


@register("staccato")
def check_redactor(**_kwargs: Any) -> list[CheckMessage]:
    try:
        redactors.load(conf.load().redactor)
    except ImproperlyConfigured:  # E001 says so
        return []
    except ValueError as error:
        hint = "It takes a text and returns a text."
        return [Error(f"STACCATO_REDACTOR: {error}.", hint=hint, id="staccato.E008")]
    return []


@register("staccato")
def check_prompt_source(**_kwargs: Any) -> list[CheckMessage]:
    try:
        path = conf.load().prompt_source
    except ImproperlyConfigured:  # E001 says so
        return []
    try:
        if path:
            load_class(path, PromptSource)
    except ValueError as error:
        hint = "It is the dotted path of a class that is a generation.PromptSource."
        return [Error(f"PROMPT_SOURCE: {error}.", hint=hint, id="staccato.E009")]
    return []


@register("staccato")
def check_encryption(**_kwargs: Any) -> list[CheckMessage]:
    try:
        is_wanted = bool(conf.load().body_key_ring)
    except ImproperlyConfigured:  # E001 says so
        return []
    if not is_wanted or find_spec("cryptography") is not None:
        return []
    return [
        Error(
            "STACCATO_BODY_KEYS is set, but the package cryptography is not installed.",
            hint="pip install 'django-staccato[encryption]'",
            id="staccato.E007",
        )
    ]


@register("staccato")
def check_user_key(**_kwargs: Any) -> list[CheckMessage]:
    if user_keys.kind_of(get_user_model()) is not None:
        return []
    return [
        Error(
            "AUTH_USER_MODEL has a primary key of type"
            f" {type(user_keys.key_field(get_user_model())).__name__}.",
            hint="Staccato takes integers, UUIDs (UUIDField) and text (CharField, TextField).",
            id="staccato.E002",
        )
    ]


@register("staccato")
def check_database(**_kwargs: Any) -> list[CheckMessage]:
    alias = getattr(settings, "STACCATO", {}).get("DATABASE", "default")
    if alias not in settings.DATABASES:
        return [
            Error(
                f"STACCATO names the database {alias!r}, which is not in DATABASES.",
                hint=f"DATABASES has {', '.join(settings.DATABASES)}.",
                id="staccato.E003",
            )
        ]
    engine = settings.DATABASES[alias].get("ENGINE", "none")
    if "sqlite" in engine or "mysql" in engine or "oracle" in engine or engine == "none":
        return [
            Error(
                f"The database {alias!r} is not PostgreSQL: its ENGINE is {engine}.",
                hint="Staccato's hot path needs PostgreSQL 14 or newer, through asyncpg.",
                id="staccato.E003",
            )
        ]
    home = router.db_for_write(get_user_model())
    if home != alias:
        return [
            Error(
                f"STACCATO names the database {alias!r}, but the users are in {home!r}.",
                hint="The log's tables refer to the users', so both belong into one database: name"
                f" {home!r} in STACCATO['DATABASE'], or route AUTH_USER_MODEL to {alias!r}.",
                id="staccato.E009",
            )
        ]
    try:
        dsn.from_django(settings.DATABASES[alias])
    except dsn.BadDatabase as error:
        return [Error(f"DATABASES[{alias!r}]: {error}.", id="staccato.E003")]
    return []


# Not tagged `staccato`, because the service starts all the same, with a critical log line.
@register(Tags.security, deploy=True)
def check_keys_required(**_kwargs: Any) -> list[CheckMessage]:
    try:
        required = conf.load().keys_required
    except ImproperlyConfigured:  # E001 says so
        return []
    if required:
        return []
    return [
        Error(
            "STACCATO_API_KEYS_REQUIRED is off: anybody who reaches the service can spend your"
            " money.",
            hint="Turn it on, and create keys with `manage.py apikey create`.",
            id="staccato.E004",
        )
    ]


@register("staccato")
def check_admin(**_kwargs: Any) -> list[CheckMessage]:
    """Unfold replaces `admin.site` when it is set up. What was registered before is lost then, and
    pages of Django's look, on its site, have no buttons and borders."""
    names = [config.name for config in apps.get_app_configs()]
    if not {"unfold", "django.contrib.admin"} <= set(names):
        return []
    is_first = names.index("unfold") < names.index("django.contrib.admin")
    if is_first and "unfold.contrib.filters" in names:
        return []
    return [
        Concern(
            "Unfold is installed, but not as the pages of the generation logs need it.",
            hint='Put "unfold" and "unfold.contrib.filters" before "django.contrib.admin" in'
            " INSTALLED_APPS, or leave Unfold out: the pages have Django's own look then.",
            id="staccato.W003",
        )
    ]


@register("staccato")
def check_pgbouncer(**_kwargs: Any) -> list[CheckMessage]:
    """Through PgBouncer, the state of a connection is lost between two transactions."""
    try:
        hot_path = conf.load()
    except ImproperlyConfigured:  # E001 says so
        return []
    database = settings.DATABASES.get(hot_path.database, {})
    if hot_path.db_pool_mode == "direct":
        return []
    concerns = []
    if not database.get("DISABLE_SERVER_SIDE_CURSORS"):
        concerns.append("DISABLE_SERVER_SIDE_CURSORS is not True")
    if database.get("OPTIONS", {}).get("prepare_threshold") is not None:
        concerns.append("OPTIONS has a prepare_threshold")
    return [
        Concern(
            f"DB_POOL_MODE is pgbouncer-transaction, but {concern} for the database"
            f" {hot_path.database!r}.",
            hint="Some of Django's own statements would fail.",
            id="staccato.W002",
        )
        for concern in concerns
    ]


@register(Tags.database)
def check_connections(
    *, databases: Sequence[str] | None = None, **_kwargs: Any
) -> list[CheckMessage]:
    """Asks the database, so it runs only with `check --database default` and `migrate`."""
    hot_path = conf.load()
    if hot_path.database not in (databases or ()):
        return []
    found = connection_budget(hot_path, server.expected_workers())
    if found is None or found.fits:
        return []
    return [Concern(f"{found.verdict}.", hint=found.remedy, id="staccato.W001")]


@register(Tags.database)
def check_prices(*, databases: Sequence[str] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """Says before the first call what would refuse it. It runs as the one above does."""
    from generation import standing  # models, which can't be imported where Django is not set up
    from generation.models import Limit

    if conf.load().database not in (databases or ()):
        return []
    try:
        unpriced = standing.unpriced(Limit.objects.filter(unit="usd"))
    except DatabaseError:  # it is not migrated yet
        return []
    if not unpriced:
        return []
    return [
        Concern(
            f"A limit in US dollars refuses models whose price is unknown: {unpriced}.",
            hint="Give them prices with LLM_PRICES; 0/0 is free.",
            id="staccato.W005",
        )
    ]
