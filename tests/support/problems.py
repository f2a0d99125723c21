"""Problem documents, as RFC 9457 has them."""

from __future__ import annotations

PROBLEM = "application/problem+json"


def problem(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == PROBLEM, answer.text
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    prefix, _, slug = document["type"].rpartition(":")
    assert prefix == "urn:staccato:problem"
    return answer.status_code, slug
