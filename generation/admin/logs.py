"""The generation logs in the admin. The list counts no table and asks nothing per row.

Texts are shown to those who may read them, and read after the access is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from django.contrib import admin, messages
from django.http import HttpResponseRedirect
from django.urls import path

from generation import access, conf
from generation.admin import columns, log_rows
from generation.admin.conversations import turns_of
from generation.admin.export.pages import ExportPages
from generation.admin.filters import is_cluttered, panel, tidied
from generation.admin.log_list import LogList
from generation.admin.log_steps import chosen_in, step
from generation.admin.overview import attempts
from generation.admin.overview.pages import OverviewPages
from generation.admin.read_only import ReadOnlyAdmin
from generation.admin.replays import Replays
from generation.admin.saved_views import SavedViews
from generation.admin.theme import STYLES
from generation.log_search.search import Place
from generation.models import GenerationBody, GenerationLog
from generation.privacy.encryption import KeyRing

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse


# What providers give; any other can be typed.
STOP_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "stop", "length")
AGAIN_AFTER_S = 2  # a search takes 2.5 s at most


@admin.register(GenerationLog)
class GenerationLogAdmin(OverviewPages, SavedViews, ExportPages, Replays, ReadOnlyAdmin):
    # The columns are those of `log_rows`, the filters those of `filters`.
    list_display = ("__str__",)
    list_per_page = 50
    search_fields = ("pk",)  # so that Django takes a search; `log_search` does it
    changelist = LogList

    class Media:
        css: ClassVar = {"all": [*STYLES, "generation/log_list.css"]}

    # A record that waits for the end of the request's transaction might be rolled back.
    @access.outside_transactions
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if is_cluttered(request.GET):
            return HttpResponseRedirect(f"{request.path}?{tidied(request.GET)}")
        may_read = request.user.has_perm(access.READ_CONTENT)
        if (
            may_read
            and request.GET.get("words")
            and not self._note(request, access.Action.SEARCH, rows=0)
        ):  # what is found, and that nothing is, says what is in the texts
            return access.unavailable()
        response = super().changelist_view(request, extra_context)
        page = getattr(response, "context_data", None) or {}
        logs: LogList | None = page.get("cl")  # None: a redirect
        if logs is None:
            return response
        for fault in logs.faults:
            messages.warning(request, fault)
        if may_read and logs.result_list:
            action = access.Action.SEARCH if logs.asked.q else access.Action.READ
            if not self._note(request, action, rows=len(logs.result_list)):
                return access.unavailable()
            logs.read_excerpts()
        logs.read_names()
        page |= {
            "may_export": request.user.has_perm(access.EXPORT),
            "may_read": may_read,
            "panel": panel(logs),
            "may_search_words": may_read and conf.load().search != "off",
            "are_encrypted": bool(conf.load().body_key_ring),
            "stop_reasons": STOP_REASONS,
            "heads": log_rows.heads(with_prompts=may_read),
            "table": log_rows.rows(logs, with_prompts=may_read),
        }
        if logs.is_refused:  # the browser asks again, so that no thread waits
            response["Refresh"] = f"{AGAIN_AFTER_S}; url={request.path}{logs.further_url}"
        return response

    @staticmethod
    def _note(request: HttpRequest, action: str, *, rows: int) -> bool:
        """Returns whether the access is recorded."""
        selection = request.META.get("QUERY_STRING", "")
        try:
            access.record(action, request=request, rows=rows, selection=selection)
        except access.NotRecorded:
            return False
        return True

    def get_urls(self) -> list[Any]:
        name = "generation_generationlog"
        return [
            path(f"<uuid:key>/{way}/", self.admin_site.admin_view(view), name=f"{name}_{way}")
            for way, view in (("older", self.step_older), ("newer", self.step_newer))
        ] + super().get_urls()

    @access.outside_transactions
    def step_older(self, request: HttpRequest, key: UUID) -> HttpResponse:
        return step(self, request, Place("before", key))

    @access.outside_transactions
    def step_newer(self, request: HttpRequest, key: UUID) -> HttpResponse:
        return step(self, request, Place("after", key))

    @access.outside_transactions
    def change_view(self, *args: Any, **kwargs: Any) -> HttpResponse:
        return super().change_view(*args, **kwargs)

    def _read_body(self, log: GenerationLog) -> Any:
        return KeyRing.of(conf.load()).reveal(GenerationBody.objects.filter(pk=log.pk).first())

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        log = context["original"]
        may_read = request.user.has_perm(access.READ_CONTENT)
        if may_read:
            try:
                access.record(access.Action.READ, request=request, rows=1, log_id=log.pk)
            except access.NotRecorded:
                return access.unavailable()
        body = self._read_body(log) if may_read else None
        if may_read:
            context |= self.replay_context(request, log)
        context |= {
            "may_read": may_read,
            "filters": request.GET.urlencode(),
            "chosen": chosen_in(request),
            "body": body,
            "conversation": turns_of(body.conversation) if body else (),
            "blocks": turns_of(body.blocks) if body else (),
            "user_name": columns.user_name(log),
            "user_key": quote(str(log.user_id or ""), safe=""),
            "api_key_name": columns.api_key_name(log),
            "was_cancelled": log.status == GenerationLog.Status.CANCELLED,  # nothing failed
            "status_label": columns.label(log.status, log.get_status_display()),
            "latency": f"{log.latency_ms:,} ms",
            "llm_latency": f"{log.llm_latency_ms:,} ms",
            "first_token": "–" if log.first_token_ms is None else f"{log.first_token_ms:,} ms",
            "cost": cost_of(log),
            "total_tokens": columns.tokens(log.total_tokens),
            "input_tokens": columns.tokens(log.input_tokens),
            "output_tokens": columns.tokens(log.output_tokens),
            "cached_tokens": columns.tokens(log.cache_read_tokens),
            "max_tokens": columns.tokens(log.max_tokens),
            "fall": attempts.drawn(log),
        }
        return super().render_change_form(request, context, *args, **kwargs)


def cost_of(log: GenerationLog) -> str:
    """Returns the cost with its price, and whether more was charged to its caller's limits."""
    cost = "–" if log.cost_usd is None else f"${log.cost_usd.normalize():f}"
    price = f" (at {log.price} per million)" if log.price else ""
    return f"{cost}{price}{', charge assumed' if log.is_cost_assumed else ''}"
