"""Text that PostgreSQL can store."""

from __future__ import annotations

from generation.storable import clean, is_storable


def test_text_that_postgresql_cannot_store_is_replaced():
    assert clean("a\x00b\ud800c\udfff") == "a\ufffdb\ufffdc\ufffd"
    assert clean("plain \U0001f600") == "plain \U0001f600"
    assert not is_storable("\x00")
    assert is_storable("\x01\ufffd")
