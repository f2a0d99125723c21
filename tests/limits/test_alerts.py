"""An operator hears of each threshold once for each window, whichever process sees it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging

from generation import conf
from generation.limits.alerts import Alerts
from generation.llm.transport import Transport
from generation.llm.webhook import Webhook
from tests.support.provider import Provider, says
from tests.support.waiting import HANG_S


async def test_each_threshold_is_told_once_by_one_process(store, process, limit, caplog):
    rule = await limit(unit="usd", amount=100 * 10**9)
    sent, alerts, blocks = [], [], []

    async def send(document):
        sent.append(document)

    for _ in range(2):
        alerts.append(Alerts(store.limits, send))
        ledger = await process(on_used=alerts[-1].note_used)
        blocks.append(ledger.block(rule, ""))
        await ledger._ask(blocks[-1], 0)
    with caplog.at_level(logging.WARNING, "generation.limits.alerts"):
        for dollars in (49, 50, 79, 81, 100, 120):
            for block, each in zip(blocks, alerts, strict=True):
                block.spent = dollars * 10**9
                block.used_elsewhere = 0
                async with each.running():
                    each.note_used(block)
    assert [document["per_cent"] for document in sent] == [50, 80, 100]
    assert (sent[0]["policy"], sent[0]["used"], sent[0]["limit"]) == (
        "all-usd-month",
        "50.00",
        "100.00",
    )
    assert len(caplog.records) == 3
    assert "50 % of all-usd-month are used: 50.00 of 100.00" in caplog.messages[0]


async def test_a_message_is_signed_and_sent_again_until_it_is_taken(monkeypatch):
    monkeypatch.setattr("generation.llm.webhook.PAUSES_S", (0, 0, 0))
    provider = Provider(says(200, b""), script=[says(500, b"")])
    async with provider.serve(), Transport(connect_timeout=HANG_S) as transport:
        settings = conf.parse(
            {"LIMIT_WEBHOOK": f"{provider.url}/alerts", "LIMIT_WEBHOOK_SECRET": "secret"}
        )
        await Webhook(settings, transport).send({"per_cent": 80})
    first, second = provider.requests
    assert second.json == {"per_cent": 80}
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    head = second.headers
    signed = b"%s.%s.%s" % (
        head["webhook-id"].encode(),
        head["webhook-timestamp"].encode(),
        second.body,
    )
    expected = base64.b64encode(hmac.digest(b"secret", signed, hashlib.sha256)).decode()
    assert head["webhook-signature"] == f"v1,{expected}"


async def test_a_webhook_that_is_away_costs_a_line_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr("generation.llm.webhook.PAUSES_S", (0, 0, 0))
    async with Transport(connect_timeout=HANG_S) as transport:
        settings = conf.parse({"LIMIT_WEBHOOK": "http://127.0.0.1:9"})
        await Webhook(settings, transport).send({"per_cent": 80})
    assert "which is lost" in caplog.text
