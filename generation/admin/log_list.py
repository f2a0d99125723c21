"""The list of the log: what an address asks for, and the page of rows next to a place in it."""

# ruff: noqa: ARG002  # Django passes its hooks more than each needs

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR
from django.contrib.auth import get_user_model
from django.db import DataError, router
from django.db.models import TextField, Value
from django.db.models.functions import Coalesce, Left, NullIf
from django.utils.html import format_html
from django.utils.timezone import localtime

from generation import access, conf
from generation.admin.pagination import NewestFirst, take_position
from generation.log_search import words
from generation.log_search.search import Page, Place, oldest, search
from generation.log_search.selection import parse, unknown
from generation.log_search.sought import Sought
from generation.models import GenerationBody, Profile
from generation.partitions.intervals import moment_of
from generation.privacy.encryption import EXCERPT_CHARS, KeyRing

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    from generation.log_search.selection import Selection
    from generation.models import GenerationLog

# What a row shows; the rest stays in the database.
SHOWN = (
    *("user_id", "provider", "model", "total_tokens", "status", "error_type"),
    *("cost_usd", "latency_ms", "created_at"),
)


class LogList(NewestFirst):
    """Django's list of changes, with filters of our own and bounded searches."""

    asked: Selection
    is_newest: bool  # the page is the one with the newest rows
    faults: list[str]  # a sentence for each value of the address that was ignored
    searched = ""  # how far, in words; '': nothing narrows the list
    is_early = False  # the search ended before it had found a page of rows
    is_refused = False  # since other searches are under way
    further_url: str | None = None  # from where it goes on; None: it is at its end

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> QuerySet[GenerationLog]:
        if unknown(self.params):
            raise IncorrectLookupParameters
        asked, self.faults = parse({name: str(value) for name, value in self.params.items()})
        if asked.words:
            asked, fault = self._check_words(request, asked)
            self.faults += filter(None, [fault])
        self.asked = asked
        self.filter_specs: list[Any] = []
        self.has_filters = True
        self.has_active_filters = bool(asked.names)
        self.clear_all_filters_qs = "?"
        logs = self.root_queryset.prefetch_related(None).only(*SHOWN)
        self._sought = Sought(logs, asked)
        return self._sought.logs

    @staticmethod
    def _check_words(request: HttpRequest, asked: Selection) -> tuple[Selection, str]:
        """Returns what may be asked for, and a sentence if that is less: a search in texts
        shows what is in them."""
        if not request.user.has_perm(access.READ_CONTENT):
            fault = "because your account may not read prompts and answers."
        elif conf.load().search == "off":
            fault = "because STACCATO_SEARCH is off."
        elif not words.lexemes(router.db_for_read(GenerationBody), asked.words):
            fault = "because it has no letter and no digit."
        else:
            return asked, ""
        return replace(asked, words=""), f"The search in texts was ignored, {fault}"

    def get_results(self, request: HttpRequest) -> None:
        side, key = take_position(request)
        try:
            place = Place(side, UUID(key)) if side in {"before", "after"} else None  # type: ignore[arg-type]  # it is one of them
            page = self._page(place)
        except (ValueError, DataError) as error:
            raise IncorrectLookupParameters from error
        rows, edge = page.rows, page.edge
        is_back = self.is_newest or side == "before"
        if edge:
            self.further_url = self._url("before" if is_back else "after", edge)
        if not self.is_newest:
            at = rows[0].pk if rows else place and place.key
            self.newest_url = self.get_query_string()
            self.newer_url = self._url("after", at) if is_back else self.further_url
        if is_back:
            self.older_url = self.further_url
        elif rows:
            self.older_url = self._url("before", rows[-1].pk)
        self.is_early = edge is not None and len(rows) < self.list_per_page
        self.is_refused = page.is_refused
        if self.has_active_filters:
            self.searched = self._searched(page, is_back=is_back)
        self.show_page(rows)

    def _page(self, place: Place | None) -> Page:
        size = self.list_per_page
        page = search(self._sought, size=size, place=place)
        if place and place.side == "after" and page.edge is None:
            place = None  # the newer rows all fit on the first page
            page = search(self._sought, size=size)
        self.is_newest = place is None
        return page

    def _url(self, side: str, key: object) -> str:
        return self.get_query_string({PAGE_VAR: f"{side}:{key}"})

    def _searched(self, page: Page, *, is_back: bool) -> str:
        """Returns how far the log is searched with this page; '' if it is empty."""
        if self.is_early and page.edge:
            end, start_of = moment_of(page.edge), ""
        elif page.edge:
            end, start_of = page.rows[-1 if is_back else 0].created_at, ""
        elif first := oldest(self.asked):
            end, start_of = moment_of(first), "texts" if self.asked.words else "log"
            if self.asked.since and self.asked.since > end:
                end, start_of = self.asked.since, "chosen time"
        else:
            return ""
        return format_html(
            "Searched {} to <time>{}</time>{}",
            "back" if is_back else "forward",
            f"{localtime(end):%Y-%m-%d %H:%M:%S}",
            f", the start of the {start_of}" if start_of else "",
        )

    def read_names(self) -> None:
        """Name the users of the page's logs; one that was deleted keeps its rows."""
        model = get_user_model()
        keys = {log.user_id for log in self.result_list} - {None}
        found = model._base_manager.filter(pk__in=keys)
        names = dict(found.values_list("pk", model.USERNAME_FIELD)) if keys else {}
        for log in self.result_list:
            deleted = "" if log.user_id is None else f"deleted user {log.user_id}"
            log.user_label = names.get(log.user_id, deleted)

    def read_excerpts(self) -> None:
        """Of the logs' texts, read each prompt's start, and that of its user's template, with which
        it may begin."""
        bodies = GenerationBody.objects.filter(pk__in=[log.pk for log in self.result_list])
        ring = KeyRing.of(conf.load())
        encrypted = NullIf("excerpt", Value("", TextField()))
        prompt = Coalesce(encrypted, Left("prompt", EXCERPT_CHARS, output_field=TextField()))
        excerpts = {
            key: ring.show(key, "excerpt", excerpt, encryption_key)
            for key, excerpt, encryption_key in bodies.values_list("pk", prompt, "encryption_key")
        }
        profiles = Profile.objects.filter(pk__in={log.user_id for log in self.result_list})
        start = Left("prompt_template", EXCERPT_CHARS)
        templates = dict(profiles.values_list("pk", start))
        for log in self.result_list:
            excerpt = excerpts.get(log.pk, "")  # kept for a shorter time than the log
            log.excerpt = without_template(excerpt, templates.get(log.user_id, ""))


def without_template(prompt: str, template: str) -> str:
    """Returns what a request added to its user's template, or the whole prompt if that is unlike
    the template or adds nothing. Otherwise all rows of a user would begin with the same words."""
    fixed = template.partition("$")[0]
    added = prompt[len(fixed) :].strip() if prompt.startswith(fixed) else ""
    return f"… {added}" if fixed and added else prompt
