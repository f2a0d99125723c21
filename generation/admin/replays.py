"""A generation beside the one whose prompt it sent again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path, reverse

from generation import access, conf, replaying
from generation.admin import columns
from generation.admin.conversations import turns_of
from generation.admin.overview.writing import change
from generation.admin.theme import ModelAdmin
from generation.admin.word_diff import compare
from generation.llm.offer import Offer
from generation.models import GenerationBody, GenerationLog
from generation.partitions.intervals import later
from generation.privacy.encryption import KeyRing

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse

    from generation.admin.word_diff import Span

LISTED = 20  # replays of one generation
_COMPARE = "admin:generation_generationlog_compare"


class Replays(ModelAdmin):
    """Of the page of a generation."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.compare)
        name = "generation_generationlog_compare"
        return [path("<path:object_id>/compare/", view, name=name), *super().get_urls()]

    def replay_context(self, request: HttpRequest, log: GenerationLog) -> dict[str, Any]:
        """Returns what the page shows of replays, to those who may read texts."""
        # Later, and while the texts were kept: so few partitions are searched.
        kept = timedelta(days=conf.load().body_retention_days + 7)
        replays = GenerationLog.objects.filter(
            pk__gt=log.pk, pk__lt=later(log.pk, kept), replay_of__isnull=False, replay_of=log.pk
        )
        shown: dict[str, Any] = {
            "replays": [
                {"log": each, "url": reverse(_COMPARE, args=[each.pk])}
                for each in replays.order_by("-pk")[:LISTED]
            ],
            "replay_url": "",
            "compare_url": reverse(_COMPARE, args=[log.pk]) if log.replay_of else "",
        }
        if not request.user.has_perm(replaying.PERMISSION):
            return shown
        try:
            shown["replay_url"] = reverse("staccato-replay", args=[log.pk])
        except NoReverseMatch:  # a project that serves the admin alone
            return shown
        try:
            replaying.read(log)
        except replaying.NotReplayable as lack:
            shown["replay_lack"] = str(lack)
        asked = f"{log.provider}:{log.model}"
        shown["replay_targets"] = [
            {"value": str(target), "is_same": str(target) == asked}
            for target in Offer(conf.load()).targets
        ]
        return shown

    @access.outside_transactions
    def compare(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Both answers with their figures."""
        user = request.user
        if not (self.has_view_permission(request) and user.has_perm(access.READ_CONTENT)):
            raise PermissionDenied
        try:
            log = GenerationLog.objects.filter(pk=unquote(object_id)).first()
        except ValidationError:
            raise Http404 from None
        first = None
        if log is not None:
            if log.replay_of is None:
                raise Http404
            first = GenerationLog.objects.filter(pk=log.replay_of).first()
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": "Side by side",
            "original": log,
        }
        if log is not None:
            try:
                access.record(
                    access.Action.READ,
                    request=request,
                    rows=1 + bool(first),
                    log_id=log.pk,
                    selection=f"beside {log.replay_of}",
                )
            except access.NotRecorded:
                return access.unavailable()
            context |= _sides(first, log)
        return TemplateResponse(request, "admin/generation/generationlog/compare.html", context)


def _sides(first: GenerationLog | None, second: GenerationLog) -> dict[str, Any]:
    bodies = _bodies([log.pk for log in (first, second) if log is not None])
    left, right = bodies.get(first.pk if first else None), bodies.get(second.pk)
    spans = compare(_answer(left), _answer(right))
    sent = left or right
    return {
        "note": spans[2],
        "prompt": sent.prompt if sent else "",
        "system": sent.system if sent else "",
        "conversation": turns_of(sent.conversation) if sent else (),
        "sides": [
            _side("First", first, left, spans[0]),
            _side("Again", second, right, spans[1]),
        ],
        "figures": _figures(first, second),
    }


def _side(title: str, log: GenerationLog | None, body: Any, spans: list[Span]) -> dict[str, Any]:
    return {
        "title": title,
        "log": log,
        "status": log and columns.label(log.status, log.get_status_display()),
        "user": log and columns.user_name(log),
        "error": body.error if body else "",
        "has_body": body is not None,
        "spans": spans,
    }


def _figures(first: GenerationLog | None, second: GenerationLog) -> list[tuple[str, ...]]:
    """Returns rows: what it is, of the first, of the second, and how that differs."""
    rows = (
        ("Latency", "latency_ms", lambda value: f"{value:,} ms"),
        ("LLM", "llm_latency_ms", lambda value: f"{value:,} ms"),
        ("Input tokens", "input_tokens", lambda value: f"{value:,}"),
        ("Output tokens", "output_tokens", lambda value: f"{value:,}"),
        ("Cost", "cost_usd", lambda value: f"${value.normalize():f}"),
        ("Stop reason", "stop_reason", str),
    )
    shown = []
    for title, name, written in rows:
        values: list[Any] = [getattr(log, name, None) for log in (first, second)]
        texts = ["–" if value in (None, "") else written(value) for value in values]
        before, after = values
        is_number = after is not None and not isinstance(after, str)
        shown.append((title, *texts, change(after, before) if is_number else ""))
    return shown


def _answer(body: Any) -> str:
    """Returns an answer as text, with its tool calls."""
    if body is None:
        return ""
    turns = turns_of(body.blocks)
    return "\n\n".join(turn.text for turn in turns) if turns else body.result


def _bodies(keys: list[UUID]) -> dict[UUID | None, Any]:
    ring = KeyRing.of(conf.load())
    return {body.pk: ring.reveal(body) for body in GenerationBody.objects.filter(pk__in=keys)}
