"""For a project's own tests: an LLM that says what the test says, in place of all that a process
opens.

The three phases run as they do in production. The LLM is a queue, and rows are written through
Django's own connection, so that they are in the transaction of the test. Nothing is opened: no
socket, no thread, no journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import transaction

from generation import conf
from generation.errors import IdempotencyKeyReused, LLMError, LLMTimedOut, UnknownUser
from generation.events import Start, TextDelta
from generation.llm.completion import CompletionContext
from generation.models import GenerationBody, GenerationLog
from generation.models import Profile as ProfileModel
from generation.pipeline.phases import Pipeline
from generation.privacy.policy import ContentPolicy
from generation.records import NOBODYS, Claim, KeyRef, Profile, Reply, Usage
from generation.runtime import process
from generation.runtime.admission import Admission
from generation.runtime.announcing import generation_stored
from generation.store import prompt_source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from generation.effects import Effect
    from generation.llm.completion import Meter, Outcome
    from generation.pipeline.call import GenerationCall
    from generation.pipeline.own_phase import OwnPhase
    from generation.pipeline.relay import Relay
    from generation.records import Generation, GenerationRequest, KeyedRow, Prompt

Result = TypeVar("Result")

PROVIDER = "test"
_BYTES = 2**30  # of requests in flight; a test has few
_HANG = object()


class QueuedLLM:
    """Answers with what is queued, in order; once the queue is empty, with `default`."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []  # as they were asked
        self.default = "An answer."
        self._queue: deque[str | LLMError | object] = deque()

    def answers(self, *texts: str) -> None:
        """Queue answers."""
        self._queue.extend(texts)

    def fails(self, error: LLMError) -> None:
        """Queue a failure, e.g. `LLMRateLimited("slow down")`."""
        self._queue.append(error)

    def hangs(self) -> None:
        """Queue a call that lasts until its timeout, or until it is abandoned."""
        self._queue.append(_HANG)

    # What the pipeline asks of an LLM client.

    def choose(self, provider: str, model: str) -> tuple[str, str]:
        return provider or PROVIDER, model or PROVIDER

    def check(self, prompt: Prompt) -> None: ...

    def begin(
        self,
        prompt: Prompt,
        relay: Relay | None = None,
        limit_s: float | None = None,
        meter: Meter | None = None,
    ) -> CompletionContext:
        limit_s = min(limit_s or conf.load().llm_timeout, conf.load().llm_timeout)
        deadline = asyncio.get_running_loop().time() + limit_s
        return CompletionContext(prompt, "", deadline, relay=relay, meter=meter)

    async def run(self, context: CompletionContext) -> Outcome:
        prompt = context.prompt
        self.prompts.append(prompt)
        said = self._queue.popleft() if self._queue else self.default
        if said is _HANG:
            await asyncio.sleep(context.deadline - asyncio.get_running_loop().time())
            said = LLMTimedOut("the test's LLM hangs")
        if isinstance(said, LLMError):
            return context.failed(said)
        text = str(said)
        if context.relay is not None:
            pieces = [TextDelta(piece) for piece in re.findall(r"\s*\S+\s*", text) or [text]]
            context.relay.put([Start(prompt.model, prompt.provider), *pieces])
        usage = Usage(len(prompt.text.split()), len(text.split()))
        return context.succeeded(Reply(text, usage, "end_turn"), prompt.provider, prompt.model)


@contextlib.contextmanager
def override_llm() -> Iterator[QueuedLLM]:
    """Let `generate()` and its kin ask the LLM that this yields, and write rows through Django.

    For `unittest`: `self.llm = self.enterContext(override_llm())` in `setUp()`.
    """
    llm = QueuedLLM()
    engine = _Engine(llm)
    with process.override(cast("process.Runtime", engine)):
        try:
            yield llm
        finally:
            engine.close()


class _Engine:
    """What a `Runtime` is to code in this process."""

    def __init__(self, llm: QueuedLLM) -> None:
        self.settings = conf.load()
        self._own_loop = asyncio.new_event_loop()
        # Django's connection belongs to the test's thread, while no event loop runs in it: so the
        # loop hands such work out, and stops meanwhile.
        self._outside: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._answers: dict[KeyRef, tuple[Any, Generation]] = {}
        pipeline = Pipeline(
            self.settings,
            cast("Any", self),
            cast("Any", self),
            cast("Any", self),
            cast("Any", llm),
            cast("Any", self),
            ContentPolicy(self.settings),
            limits=None,
            report=lambda _row, _request: None,
        )
        self._admission = Admission(
            self.settings.max_in_flight,
            _BYTES,
            pipeline.generate,
            check_journal=lambda: None,
            refuse_early=lambda _request: None,
        )

    def close(self) -> None:
        self._own_loop.close()

    # As a runtime.

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            return self._own_loop

    def start(self, request: GenerationRequest, own: OwnPhase | None = None) -> GenerationCall:
        with self._admission.enter() as place:
            return place.start(request, own)

    async def arun(self, work: Coroutine[Any, Any, Result]) -> Result:
        return await work

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        task = self._own_loop.create_task(work)
        task.add_done_callback(lambda _done: self._own_loop.stop())
        while not task.done():
            self._own_loop.run_forever()  # until it is done, or has something to do outside
            while self._outside:
                do, future = self._outside.popleft()
                try:
                    future.set_result(do())
                except Exception as error:  # noqa: BLE001  # who waits for it gets it
                    future.set_exception(error)
        return task.result()

    async def _in_django(self, do: Callable[[], Result]) -> Result:
        if asyncio.get_running_loop() is not self._own_loop:
            return await sync_to_async(do)()
        future: asyncio.Future[Result] = self._own_loop.create_future()
        self._outside.append((do, future))
        self._own_loop.stop()
        return await future

    # As a database that lends no connections.

    @staticmethod
    def track() -> None: ...

    @staticmethod
    def no_connection_held() -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    # As profiles.

    async def read(self, request: GenerationRequest) -> Profile:
        return await self._in_django(lambda: _read_profile(request))

    # As idempotency keys.

    async def once(
        self, request: GenerationRequest, generate: Callable[[Claim], Awaitable[Generation]]
    ) -> Generation:
        ref = KeyRef(request.user_id, request.idempotency_key)
        asked = (request.prompt, request.messages, request.input, dict(request.variables))
        if ref in self._answers:
            first, answer = self._answers[ref]
            if first != asked:
                raise IdempotencyKeyReused("this key was used with another request")
            return replace(answer, replayed=True)
        answer = await generate(cast("Claim", None))
        self._answers[ref] = (asked, answer)
        return answer

    # As the log.

    async def write(self, keyed: KeyedRow) -> None:
        await self._in_django(lambda: _write(keyed))


def _read_profile(request: GenerationRequest) -> Profile:
    user_id: Any = request.user_id
    if path := conf.load().prompt_source:
        asked = [prompt_source.PromptRequest.of(request)]
        [profile] = async_to_sync(prompt_source.read)(prompt_source.load(path), asked)
        if profile is None:
            raise UnknownUser(f"user {user_id} does not exist or has no prompt")
        return profile
    user = get_user_model()._default_manager.filter(pk=user_id).first()  # noqa: SLF001  # Django documents it
    if user is None or not user.is_active:
        raise UnknownUser(f"user {user_id} does not exist or has no prompt")
    stored = ProfileModel.objects.filter(pk=user_id).first()
    if stored is None:
        return replace(NOBODYS, user_id=user_id)
    names = ("prompt_template", "system", "provider", "model", "max_tokens", "log_content")
    return Profile(user_id, *(getattr(stored, name) for name in names))


def _write(keyed: KeyedRow) -> None:
    row = {**asdict(keyed.row), "attempts": [asdict(each) for each in keyed.row.attempts]}
    row["metadata"] = dict(keyed.row.metadata)
    log = {each.attname for each in GenerationLog._meta.concrete_fields} - {"stored_at"}
    body = {each.attname for each in GenerationBody._meta.concrete_fields} - {"log_id"}
    with transaction.atomic(using=conf.load().database):
        GenerationLog.objects.create(**{name: row[name] for name in log})
        GenerationBody.objects.create(log_id=row["id"], **{name: row[name] for name in body})
        for effect in keyed.effects:
            _apply(effect)
    generation_stored.send(sender=GenerationLog, generation_id=row["id"])


def _apply(effect: Effect) -> None:
    model = apps.get_model(effect.model)
    names = {field.column: field.attname for field in model._meta.concrete_fields}
    values = {names[column]: value for column, value in effect.values.items()}
    if effect.where is None:
        model._base_manager.bulk_create([model(**values)])  # without signals, as in production
    else:
        where = {names[column]: value for column, value in effect.where.items()}
        model._base_manager.filter(**where).update(**values)
