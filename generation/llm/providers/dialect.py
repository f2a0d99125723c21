"""What the replies of a dialect mean, whole or streamed. Replies are read without trust."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from generation.llm import policy
from generation.llm.providers import sse
from generation.llm.providers.base import Answer
from generation.llm.providers.error_bodies import read_error, without_account
from generation.llm.providers.parsing import (
    BYTE_ORDER_MARK,
    EXCERPT_CHARS,
    Decoration,
    UnusableReply,
    excerpt,
    optional,
    parse_json,
    require_text,
)
from generation.llm.providers.stream_reader import ErrorEvent
from generation.llm.transcript import Transcript
from generation.records import Finding
from generation.telemetry import metrics

if TYPE_CHECKING:
    import httpx
    from pydantic import SecretStr

    from generation.errors import LLMError
    from generation.llm.providers.error_bodies import ErrorObject
    from generation.llm.providers.stream_reader import StreamReader
    from generation.records import Prompt, Reply, Usage

_SENTENCE_CHARS = 300
_SAYS_NOTHING = frozenset({Finding.EMPTY, Finding.CUT_OFF})


class Dialect(ABC):
    """The subclass knows the shapes; here is what follows from what they hold."""

    name: str
    answer_key: str  # of a reply's JSON: where the answer is
    _secret: SecretStr  # never shown

    def speaks(self, prompt: Prompt) -> bool:
        """Whether the prompt is a client's own request in this dialect."""
        return prompt.verbatim is not None and prompt.verbatim.dialect == self.name

    def unknown_parameter(self, prompt: Prompt) -> str:
        """What of the prompt this dialect has no place for, as a noun; '' if nothing.

        What the server makes of a client's own request is for the server to say.
        """
        if self.speaks(prompt):
            return ""
        if prompt.verbatim is not None and prompt.verbatim.path:
            return prompt.verbatim.path
        if prompt.verbatim is not None and prompt.verbatim.unsaid:
            return prompt.verbatim.unsaid[0]
        return self._unknown_parameter(prompt)

    @abstractmethod
    def _unknown_parameter(self, prompt: Prompt) -> str:
        """The same of a conversation."""

    @abstractmethod
    def encode(self, prompt: Prompt, model: str, *, is_streamed: bool = False) -> dict[str, Any]:
        """The request's body."""

    @abstractmethod
    def decode(self, payload: Any, decoration: Decoration) -> Answer:
        """The answer in a body of status 2xx. Raises `UnusableReply`."""

    @abstractmethod
    def reader(self, transcript: Transcript, decoration: Decoration) -> StreamReader:
        """Reads one streamed answer."""

    def _read(self, status: int, headers: httpx.Headers, body: bytearray) -> Answer:
        """Returns the answer. Raises the error that the reply amounts to."""
        decoration = Decoration(self._excerpt)
        payload: Any = None
        error: ErrorObject | None = None
        partial: Reply | None = None
        try:
            if body.startswith(BYTE_ORDER_MARK):
                decoration.doubt("byte order mark")
            if sse.is_stream(headers.get("content-type", ""), body):
                decoration.doubt("stream")  # we ask for none
                answer = self._join(body, decoration)
            else:
                payload = parse_json(body)
                error = read_error(payload, status, beside_an_answer=self._holds_answer(payload))
                if error is not None or not policy.is_success(status):
                    raise self._failure(status, headers, body, payload, error)
                answer = require_text(self.name, self.decode(payload, decoration))
                answer.original = payload
        except ErrorEvent as fault:
            payload, error = {}, fault.error
            partial = fault.answer.as_partial() if fault.answer else None
        except UnusableReply as fault:
            payload = None
            if policy.is_success(status):
                raise self._unusable(fault, status, self._excerpt(body)) from None
        else:
            if policy.is_success(status):
                self._count_doubtful(decoration)
                return answer
        raise self._failure(status, headers, body, payload, error, partial)

    def _join(self, body: bytearray, decoration: Decoration) -> Answer:
        """The answer of a whole stream."""
        transcript = Transcript()
        reader = self.reader(transcript, decoration)
        try:
            for name, data in sse.decode(body):
                reader.take(name, data)
            reader.end()
        except UnusableReply as fault:
            fault.answer = transcript.answer(decoration)
            raise
        return require_text(self.name, transcript.answer(decoration))

    def _unusable(
        self, fault: UnusableReply, status: int, raw_reply: str, partial: Reply | None = None
    ) -> LLMError:
        return policy.to_error(
            fault.finding,
            str(fault),
            status_code=status,
            raw_reply=raw_reply,
            partial=fault.answer.as_partial() if fault.answer else partial,
            said=self._said(raw_reply, fault.finding),
        )

    def _failure(  # noqa: PLR0913, PLR0917  # what there is of the reply
        self,
        status: int,
        headers: httpx.Headers,
        body: bytearray,
        payload: Any,
        error: ErrorObject | None,
        partial: Reply | None = None,
    ) -> LLMError:
        """Returns the error of a reply that says it is one; `payload` is None if it is no JSON."""
        if partial is None and policy.is_success(status):
            partial = self._salvage(payload)
        raw_reply = self._excerpt(body)
        sentence = error.message if error else "" if payload else raw_reply
        sentence = sentence or headers.get("location", "")  # a redirect
        finding = policy.find(status, error.finding if error else None)
        failure = policy.to_error(
            finding,
            f"{self.name} answered {status}{' with an error' * policy.is_success(status)}",
            status_code=status,
            raw_reply=raw_reply,
            partial=partial,
            said=self._said(sentence, finding),
            retry_after=policy.retry_after(headers, datetime.now(UTC)),
            should_retry=policy.should_retry(headers),
        )
        if error and error.message and policy.quotes(failure):
            quoted = without_account(self._excerpt(sentence, limit=_SENTENCE_CHARS))
            failure.detail += f": {quoted}"
        return failure

    def _settle(self, prompt: Prompt, model: str, error: LLMError) -> Answer:
        """What an error means where a client sent its own request. Raises the error of that.

        Clients know what to do with an answer that is whole and says nothing: a model may have
        nothing to add to the results of its tools. And a client chose what is in its own request,
        so what is wrong there is the client's, and no operator's.
        """
        partial = error.partial
        if prompt.verbatim is not None and error.finding in _SAYS_NOTHING and partial is not None:
            return Answer(partial.text, partial.usage, model, partial.stop_reason, partial.blocks)
        if error.finding is not Finding.OUR_PARAMETER or not self.speaks(prompt):
            raise error
        detail = f"{error.detail}: {without_account(error.said)}" if error.said else error.detail
        raise policy.to_error(
            Finding.REJECTED, detail, status_code=error.status_code, raw_reply=error.raw_reply
        ) from None

    @abstractmethod
    def count(self, usage: dict[str, Any] | None, decoration: Decoration) -> Usage:
        """The tokens of a reply."""

    def _read_other(self, status: int, headers: httpx.Headers, body: bytearray, key: str) -> Answer:
        """What a service of the provider's answered that makes no text. It is under `key`."""
        decoration = Decoration(self._excerpt)
        try:
            payload = parse_json(body)
        except UnusableReply as fault:
            if policy.is_success(status):
                raise self._unusable(fault, status, self._excerpt(body)) from None
            payload = None
        holds = isinstance(payload, dict) and payload.get(key) is not None
        error = read_error(payload, status, beside_an_answer=holds)
        if error is not None or not policy.is_success(status):
            raise self._failure(status, headers, body, payload, error)
        if not holds:
            nothing = UnusableReply(f"{self.name} sent something else than {key}")
            raise self._unusable(nothing, status, self._excerpt(body))
        usage = self.count(optional(dict, payload, "usage"), decoration)
        model = decoration.name(payload, "model")
        return Answer("", usage, model, "", original=payload)

    def _holds_answer(self, payload: Any) -> bool:
        return isinstance(payload, dict) and bool(payload.get(self.answer_key))

    def _salvage(self, payload: Any) -> Reply | None:
        """What there is of an answer beside an error."""
        if not self._holds_answer(payload):
            return None
        try:
            answer = self.decode(payload, Decoration(self._excerpt))
        except UnusableReply as fault:
            return fault.answer.as_partial() if fault.answer else None
        return answer.as_partial()

    def _count_doubtful(self, decoration: Decoration) -> None:
        for part in decoration.doubtful:
            metrics.LLM_DOUBTFUL.labels(self.name, part).inc()

    def _said(self, sentence: str, finding: Finding) -> str:
        """For an operator; nothing where none has to act, because it may hold the caller's text."""
        if policy.RULES[finding].logged is not policy.Logged.ALARM:
            return ""
        return self._excerpt(sentence, limit=_SENTENCE_CHARS)

    def _excerpt(self, source: bytearray | str, *, limit: int = EXCERPT_CHARS) -> str:
        return excerpt(source, self._secret.get_secret_value(), limit=limit)
