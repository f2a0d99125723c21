"""The function that masks texts: ours, or that of STACCATO_REDACTOR."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any

from generation.privacy.masks import CUT, MASKED_CHARS, mask
from generation.telemetry import metrics
from generation.telemetry.logs import throttled_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    Redactor = Callable[[str], str]

logger = throttled_logger(__name__)

SLOW_S = 0.02  # ours takes 0.008 s for the most hostile text


def load(path: str) -> Redactor:
    """Returns what `module:callable` names, for texts of any length, or `mask` if it is ''.

    Raises `ValueError` with the reason.
    """
    if not path:
        return mask
    module, _, name = path.partition(":")
    try:
        found = attrgetter(name)(import_module(module))
    except Exception as error:  # a module may raise anything while it is imported
        raise ValueError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"{path} is no callable, but {type(found).__name__}")  # noqa: TRY004  # the setting's value is wrong
    return _bounded(found)


def _bounded(redactor: Callable[[str], Any]) -> Redactor:
    def redact(text: str) -> str:
        start = perf_counter()
        shown = redactor(text[:MASKED_CHARS])
        taken_s = perf_counter() - start
        metrics.REDACTOR_TIME.observe(taken_s)
        if taken_s > SLOW_S:
            # Without the time, so that it is throttled; the metric has it.
            logger.warning(
                "STACCATO_REDACTOR takes more than %d ms for a text, and every request in flight"
                " waits meanwhile",
                SLOW_S * 1000,
            )
        if not isinstance(shown, str):
            raise TypeError(f"the redactor returned {type(shown).__name__}, not str")
        # PostgreSQL takes neither NUL nor a lone surrogate.
        shown = shown.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        return shown + CUT if len(text) > MASKED_CHARS else shown

    return redact
