"""(e) A stock Django project: default middleware, ninja, Django's ORM with psycopg's pool, httpx.

Settings, URLs and the view in one file. It writes to the same tables as Staccato. Its httpx
client is shared and has no limit of connections, as (c)'s.
"""

# ninja reads the annotations, of classes that a function holds: they must not be put off.
import os
import time
from datetime import UTC, datetime
from uuid import UUID

from psycopg.conninfo import conninfo_to_dict

_database = conninfo_to_dict(os.environ["DATABASE_URL"])

SECRET_KEY = "benchmark"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
LOGGING = {
    "version": 1,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "ERROR"},
}
INSTALLED_APPS = [
    "django.contrib.admin.apps.SimpleAdminConfig",  # its pages are not measured
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "generation",  # its models only
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database["dbname"],
        "USER": _database.get("user", ""),
        "HOST": _database.get("host", ""),
        "PORT": _database.get("port", ""),
        # As many as the article's pool and its overflow.
        "OPTIONS": {"pool": {"min_size": 10, "max_size": 30, "timeout": 10}},
    }
}


def build():
    """The URLs and the application; Django must know its settings first."""
    import httpx
    import ninja
    from django.core.asgi import get_asgi_application
    from django.http import Http404
    from django.urls import path

    from generation.uuid7 import uuid7

    application = get_asgi_application()

    from generation.models import GenerationBody, GenerationLog, Profile, UsageLog

    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    llm = httpx.AsyncClient(timeout=30, limits=unlimited)
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    api = ninja.NinjaAPI()

    class GenerateIn(ninja.Schema):
        input: str = ""

    class GenerationOut(ninja.Schema):
        id: UUID
        result: str
        tokens: int

    @api.post("/generate/{user_id}", response=GenerationOut)
    async def generate(request, user_id: int, body: GenerateIn):  # noqa: ARG001  # by its name
        started = time.monotonic()
        arrived_at = datetime.now(UTC)
        try:
            profile = await Profile.objects.aget(user_id=user_id, user__is_active=True)
        except Profile.DoesNotExist:
            raise Http404 from None
        prompt = f"{profile.prompt_template}\n\n{body.input}"
        response = await llm.post(
            url,
            headers={"x-api-key": "k", "anthropic-version": "2023-06-01"},
            json={
                "model": "claude-sonnet-5-5",
                "max_tokens": 1024,
                "messages": [{"role": "user", "content": prompt}],
            },
        )
        response.raise_for_status()
        data = response.json()
        usage = data["usage"]
        tokens = usage["input_tokens"] + usage["output_tokens"]
        ms = int((time.monotonic() - started) * 1000)
        log = await GenerationLog.objects.acreate(
            id=uuid7(),
            user_id=user_id,
            provider="anthropic",
            model=data["model"],
            status="succeeded",
            input_tokens=usage["input_tokens"],
            output_tokens=usage["output_tokens"],
            total_tokens=tokens,
            latency_ms=ms,
            llm_latency_ms=ms,
            created_at=arrived_at,
        )
        text = data["content"][0]["text"]
        await GenerationBody.objects.acreate(log=log, prompt=prompt, result=text)
        await UsageLog.objects.acreate(
            user_id=user_id, tokens=tokens, latency_ms=ms, created_at=arrived_at
        )
        return {"id": log.id, "result": text, "tokens": tokens}

    return application, [path("api/v1/", api.urls)]


if os.environ.get("DJANGO_SETTINGS_MODULE") != __name__:
    os.environ["DJANGO_SETTINGS_MODULE"] = __name__
    application, urlpatterns = build()
