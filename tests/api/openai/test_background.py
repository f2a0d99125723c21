"""Background responses: they go on without a client, who finds them again by their names."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import httpx

from generation.asgi import get_application
from generation.pipeline.call import GenerationCall
from generation.runtime import process as runtime
from tests.support import in_process
from tests.support.dialects import OpenAIDialect
from tests.support.keys import amake_key, bearer
from tests.support.provider import streams
from tests.support.upstream import latest_row, serving
from tests.support.waiting import HANG_S

OPENAI = OpenAIDialect()
RESPONSES = "/u/5/v1/responses"


def asked(model=OPENAI.model, **others):
    return {"model": model, "input": "Say hello.", **others}


CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WHOLE = OPENAI.stream("Hel", "lo.", stop="tool_calls")
WHOLE.insert(-3, OPENAI.chunk({"tool_calls": [CALL]}))
BACKGROUND = asked(background=True)
STREAMED = asked(background=True, stream=True)


def read(body: bytes) -> list[dict]:
    blocks = body.removesuffix(b"\n\n").split(b"\n\n") if body else []
    return [json.loads(block.partition(b"\ndata: ")[2]) for block in blocks]


def numbers(events) -> list[int]:
    return [event["sequence_number"] for event in events]


def text_of(events) -> str:
    return "".join(event["delta"] for event in events if "output_text.delta" in event["type"])


def gated(gate: asyncio.Event):
    """Streams a half, and the rest when the gate opens."""
    return streams(*WHOLE[:2], gate, *WHOLE[2:])


def running(name: str) -> GenerationCall:
    call = runtime.current().find(UUID(name.removeprefix("resp_")))
    assert call is not None
    return call


async def retrieve(client, name: str, **query):
    return await client.get(f"{RESPONSES}/{name}", params=query)


async def test_it_is_answered_at_once_and_found_by_its_name(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = gated(gate := asyncio.Event())
        provider.release.clear()
        begun = (await client.post(RESPONSES, json=BACKGROUND)).json()
        assert (begun["status"], begun["background"], begun["store"]) == ("queued", True, True)
        assert (begun["output"], begun["usage"]) == ([], None)
        following = asyncio.create_task(retrieve(client, begun["id"], stream="true"))
        provider.release.set()
        await provider.until(lambda: provider.calls == 1, "the call")
        await provider.until(lambda: running(begun["id"]).has_content, "the first word")
        found = (await retrieve(client, begun["id"])).json()
        assert (found["status"], found["output"]) == ("in_progress", [])
        gate.set()
        events = read((await following).content)
        ended = (await retrieve(client, begun["id"])).json()
        row = await latest_row()
    assert ended["id"] == begun["id"] == f"resp_{row.id.hex}"
    assert ended["created_at"] == begun["created_at"]
    assert (ended["status"], ended["output"][0]["content"][0]["text"]) == ("completed", "Hello.")
    assert [item["type"] for item in ended["output"]] == ["message", "function_call"]
    assert events[-1]["response"]["output"] == ended["output"]
    assert (ended["usage"]["total_tokens"], row.total_tokens) == (30, 30)


async def test_who_comes_back_with_any_number_gets_what_follows_it(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = gated(gate := asyncio.Event())
        begun = (await client.post(RESPONSES, json=BACKGROUND)).json()["id"]
        ends = range(-1, 26)
        following = [
            asyncio.create_task(
                retrieve(client, begun, stream="true", **({"starting_after": n} if n >= 0 else {}))
            )
            for n in ends
        ]
        readers = running(begun).relay.readers
        await provider.until(lambda: len(readers) == len(ends), "all readers")
        gate.set()
        live = [read((await each).content) for each in following]
        stored = [
            read((await retrieve(client, begun, stream="true", starting_after=n)).content)
            for n in ends[1:]
        ]
    whole = live[0]
    assert [event["type"].removeprefix("response.") for event in whole] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    assert numbers(whole) == sorted(set(numbers(whole)))
    begin, last = numbers(whole)[4] - len("Hel") + 1, numbers(whole)[-1]
    for n, *ways in zip(ends[1:], live[1:], stored, strict=True):
        for events in ways:
            assert all(number > n for number in numbers(events))
            assert text_of(events) == "Hello."[max(0, n + 1 - begin) :]
            known = [event["type"] for event in whole if event["sequence_number"] > n]
            found = [event["type"] for event in events]
            assert [kind for kind in found if "delta" not in kind] == [
                kind for kind in known if "delta" not in kind
            ]
    assert last < ends[-1]
    assert live[-1] == stored[-1] == []


async def test_its_client_may_leave(users, orm, settings):
    async with serving(settings, OPENAI, ON_DISCONNECT="cancel") as (client, provider):
        provider.behave = gated(gate := asyncio.Event())
        leaves = asyncio.Event()
        request = asyncio.create_task(
            in_process.serve(
                get_application(),
                path=RESPONSES,
                headers=[(b"content-type", b"application/json")],
                body=json.dumps(STREAMED).encode(),
                leaves=leaves,
            )
        )
        await provider.until(lambda: provider.calls == 1, "the call")
        leaves.set()
        await request
        again = asyncio.create_task(client.post(RESPONSES, json=BACKGROUND))
        gate.set()
        await retrieve(client, (await again).json()["id"], stream="true")
        rows = [row async for row in type(await latest_row()).objects.all()]
    assert [row.status for row in rows] == ["succeeded", "succeeded"]


async def test_its_stream_begins_before_its_answer_does(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = streams(OPENAI.error_event("overloaded"))
        answer = await client.post(RESPONSES, json=STREAMED)
        assert answer.status_code == 200
        events = read(answer.content)
        name = events[0]["response"]["id"]
        kept = (await retrieve(client, name)).json()
        again = read((await retrieve(client, name, stream="true", starting_after=1)).content)
    kinds = ["response.created", "response.in_progress", "response.failed"]
    assert [event["type"] for event in events] == kinds
    assert [event["type"] for event in again] == kinds[2:]
    for failed in (events[-1]["response"], kept, again[-1]["response"]):
        assert (failed["status"], failed["error"]["code"]) == ("failed", "llm-overloaded")


async def test_what_is_refused_before_it_costs_has_its_own_status(users, orm, settings):
    refused = {
        404: asked("nobody-has-it", background=True),
        400: asked(background=True, brand_new=1),
    }
    async with serving(settings, OPENAI) as (client, provider):
        for status, body in refused.items():
            for streamed in (False, True):
                answer = await client.post(RESPONSES, json={**body, "stream": streamed})
                assert answer.status_code == status, answer.text
        unstored = await client.post(RESPONSES, json=asked(background=True, store=False))
        assert unstored.json()["error"]["param"] == "store"
        assert provider.calls == 0


async def test_a_caller_can_end_it(users, orm, settings):
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = gated(asyncio.Event())
        name = (await client.post(RESPONSES, json=BACKGROUND)).json()["id"]
        await provider.until(lambda: running(name).has_content, "the first word")
        ended = (await client.post(f"{RESPONSES}/{name}/cancel")).json()
        row = await latest_row()
        assert (await client.post(f"{RESPONSES}/{name}/cancel")).json() == ended
        await provider.until(lambda: provider.hung_up == 1, "the end of the call")
        provider.behave = streams(*WHOLE)
        done = read((await client.post(RESPONSES, json=STREAMED)).content)[-1]["response"]
        late = (await client.post(f"{RESPONSES}/{done['id']}/cancel")).json()
    assert (ended["status"], ended["error"]) == ("cancelled", None)
    assert ended["output"][0]["content"][0]["text"] == "Hel"
    assert (row.status, row.body.error) == ("cancelled", "its caller has cancelled it")
    assert (late["status"], late["output"]) == ("completed", done["output"])


async def test_others_find_nothing(users, orm, settings, peppered):
    foreign = bearer(await amake_key(scope="user", user_id=2))
    nowhere = f"resp_{0:032x}"
    async with serving(settings, OPENAI) as (client, provider):
        provider.behave = gated(gate := asyncio.Event())
        name = (await client.post(RESPONSES, json=BACKGROUND)).json()["id"]
        for _ in ("running", "stored"):
            for address, headers in (
                (f"/v1/responses/{name}", foreign),
                (f"/v1/responses/{nowhere}", foreign),
                (f"/u/6/v1/responses/{name}", {}),
                ("/v1/responses/7", {}),
            ):
                answers = (
                    await client.get(address, headers=headers),
                    await client.post(f"{address}/cancel", headers=headers),
                )
                for answer in answers:
                    assert answer.status_code == 404, address
                    assert answer.json()["error"]["message"].startswith("there is no such")
            gate.set()
            await retrieve(client, name, stream="true")
        odd = await retrieve(client, name, stream="true", starting_after="x")
        assert odd.status_code == 400


async def test_its_answer_is_there_for_a_day_whatever_the_log_keeps(users, orm, settings):
    async with serving(settings, OPENAI, LOG_CONTENT="metadata") as (client, provider):
        provider.behave = streams(*OPENAI.stream("Hel", "lo."))
        name = read((await client.post(RESPONSES, json=STREAMED)).content)[-1]["response"]["id"]
        found = (await retrieve(client, name)).json()
        row = await latest_row()
    assert found["output"][0]["content"][0]["text"] == "Hello."
    assert (row.body.prompt, row.body.result_held) == ("", True)


async def test_another_process_knows_that_it_runs_and_has_it_when_it_has_ended(
    serve, orm, llm, tmp_path
):
    llm.behave = gated(gate := asyncio.Event())
    environment = {
        "STACCATO_JOURNAL_DIR": str(tmp_path),  # shared, so they are one deployment
        "application": "tests.support.paced:application",
        "ASK_LIMIT_S": str(HANG_S),
        "LLM_PROVIDER": "openai",
        "LLM_MODEL": OPENAI.model,
        "OPENAI_API_KEY": "test-key",
        "OPENAI_BASE_URL": llm.url,
    }
    async with (
        serve(**environment) as one,
        serve(**environment) as other,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{one.port}", trust_env=False) as here,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{other.port}", trust_env=False) as there,
    ):
        name = (await here.post(RESPONSES, json=BACKGROUND)).json()["id"]
        assert (await retrieve(there, name)).json()["status"] in {"queued", "in_progress"}
        query = {"stream": "true", "starting_after": "1"}
        async with there.stream("GET", f"{RESPONSES}/{name}", params=query) as following:
            gate.set()
            assert text_of(read(await following.aread())) == "Hello."
        gate.clear()
        name = (await here.post(RESPONSES, json=BACKGROUND)).json()["id"]
        ended = await there.post(f"{RESPONSES}/{name}/cancel")
        assert ended.json()["status"] == "cancelled"
        assert (await latest_row()).status == "cancelled"
