"""What the body of an error shows, in the shapes and words of many servers.

Gateways and compatible servers mix dialects, so all providers share these tables. Codes come
first, because a sentence may quote the caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from generation.llm import policy
from generation.records import Finding

_SENTENCE_CHARS = 1000
_NO_ERROR = frozenset({"", "0", "200", "ok", "success", "none", "null", "false"})

_CODES = {
    Finding.DECLINED: """
        content_filter content_policy_violation data_inspection_failed datainspectionfailed
        moderation_error sensitive responsibleaipolicyviolation prompt_blocked
    """,
    Finding.TOO_LONG: """
        context_length_exceeded string_above_max_length request_too_large payload_too_large
        exceed_context_size_error max_tokens_exceeded
    """,
    Finding.ACCOUNT: """
        insufficient_quota billing_error billing_hard_limit_reached billing_not_active
        insufficient_credits insufficient_balance account_deactivated arrearage payment_required
        unsupported_country_region_territory exceeded_current_quota_error budget_exceeded
    """,
    Finding.BAD_KEY: """
        invalid_api_key invalidapikey incorrect_api_key_error authentication_error
        invalid_authentication_error permission_error unauthenticated
    """,
    Finding.UNKNOWN_MODEL: """
        model_not_found modelnotfound model_decommissioned model_not_available
        model_not_supported model_terms_required unknown_model deploymentnotfound not_found_error
    """,
    Finding.OUR_PARAMETER: """
        unsupported_parameter unsupported_value unknown_parameter
    """,
    Finding.RATE_LIMITED: """
        rate_limit_exceeded ratelimitexceeded rate_limit_error rate_limit_reached_error
        throttling throttlingexception resource_exhausted too_many_requests
    """,
    Finding.OVERLOADED: """
        overloaded_error engine_overloaded engine_overloaded_error server_overloaded unavailable
        service_unavailable capacity_exceeded
    """,
    Finding.FAILED: """
        server_error api_error internal_error internal_server_error internal upstream_error
    """,
    Finding.TIMED_OUT: """
        timeout_error timeout deadline_exceeded
    """,
}
_FINDING_OF_CODE = {code: finding for finding, codes in _CODES.items() for code in codes.split()}
# Kinds so general that the status says more; they count only beside a status of success.
_FINDING_OF_GENERAL_CODE = {
    "invalid_request_error": Finding.REJECTED,
    "invalid_argument": Finding.REJECTED,
    "badrequesterror": Finding.REJECTED,
    "notfounderror": Finding.NOT_THE_API,
}

# One pattern a line. In this order, because a sentence may hold the words of several.
_WORDS = {
    Finding.ACCOUNT: r"""
        credit balance|spend(ing)? limit|payment (required|method)|billing (hard limit|not active)
        insufficient.{0,30}(balance|credit|fund|quota)
        (out of|no|more|purchase|add) credits
        (specified|monthly)\b.{0,10}(usage|spending|budget|quota)|budget.{0,20}exceeded
        (account|organi[sz]ation|project|workspace|subscription)\b.{0,40}(disabled|suspended|deactivated)
        (account|organi[sz]ation|project|workspace|subscription)\b.{0,40}(banned|overdue|arrears|expired)
        (country|region|location).{0,40}not supported
    """,
    Finding.BAD_KEY: r"""
        (incorrect|invalid|wrong|missing|expired|revoked|malformed|no|unknown)\b.{0,20}api[ _-]?key
        (invalid|missing|expired|malformed|no)\b.{0,20}(access token|credentials|authorization)
        api[ _-]?key.{0,40}(invalid|not valid|expired|not found|missing|revoked|incorrect)
        authentication fail|unauthori[sz]ed
    """,
    Finding.OUR_PARAMETER: r"""
        unsupported (parameter|value)|anthropic-version
        (unrecognized|unknown|unexpected) (request )?(argument|parameter|field|keyword)
        not supported with this model|use '?max_(completion_)?tokens'? instead
        extra (inputs|fields) (are )?not permitted
        does(n't| not) support (the )?(system|developer)
        (system|developer) (role|message|prompt|instruction)s?( is| are)? not (supported|enabled)
    """,
    Finding.TOO_LONG: r"""
        context[ _-]?(length|window|size)|maximum context
        (prompt|input|request)\b.{0,20} too (long|large)
        too many (input |prompt )?tokens|exceeds?\b.{0,40}(token limit|number of tokens)
        max_(completion_)?tokens.{0,60}(too large|maximum|at most|exceed)
    """,
    Finding.OVERLOADED: r"""
        overloaded|(at|over|no|exceeded) capacity|capacity exceeded|high demand
        (temporarily|currently) (unavailable|not available|loading)
        (model|server)\b.{0,40}(is loading|warming up|busy)
    """,
    Finding.UNKNOWN_MODEL: r"""
        (model|deployment)\b.{0,120}(not found|not exist|decommissioned|deprecated|retired)
        (model|deployment)\b.{0,120}(no longer|not supported|not available|not a valid|unknown)
        (model|deployment)\b.{0,120}isn.t (supported|available)
        model[ _-]?(id|identifier|name)\b.{0,80}(invalid|not valid)
        (no such|unknown|invalid|unsupported) model|not a valid model
        no (endpoints|allowed providers|available providers)\b
    """,
    Finding.DECLINED: r"""
        content.{0,20}(filter|polic|management)|flagged|moderation|safety|responsible ai
        (usage|acceptable use) polic|prohibited|high risk|sensitive|inappropriate
    """,
    Finding.RATE_LIMITED: r"""
        rate.?limit|too many requests|throttl|(requests|tokens) per (min|day)
    """,
    Finding.NOT_THE_API: r"""
        unexpected endpoint|cannot post|no route|route not found|invalid url
        unknown (request )?(url|path|endpoint)|method not allowed|endpoint not found
    """,
}
_FINDING_OF_WORDS = {
    finding: re.compile("|".join(map(str.strip, words.strip().splitlines())), re.IGNORECASE)
    for finding, words in _WORDS.items()
}

_ACCOUNT_IDS = re.compile(r"\b(org|proj|acct|user)[-_]\w{6,}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ErrorObject:
    """The error in a reply: the provider's sentence, and what it shows if that is clear."""

    message: str
    finding: Finding | None


def read_error(payload: Any, status: int, *, beside_an_answer: bool = False) -> ErrorObject | None:
    """Returns the error in a reply's JSON, or None. An error without content is none."""
    if isinstance(payload, list):  # Google
        payload = payload[0] if payload else None
    if not isinstance(payload, dict):
        return None
    error = payload.get("error")
    if beside_an_answer and not error and "base_resp" not in payload:  # nearly every reply
        return None
    is_success = policy.is_success(status)
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        sentence, codes = _sentence(error), _codes(error, "code", "type", "status")
    elif isinstance(error, str) and error:  # xAI, LM Studio, Ollama
        sentence, codes = error, _codes(payload, "code")
    elif isinstance(inner := payload.get("base_resp"), dict):  # MiniMax
        sentence, codes = _sentence(inner), _codes(inner, "status_code")
    elif beside_an_answer:
        return None
    else:  # FastAPI, vLLM, Mistral, Cohere, Cloudflare, DashScope
        sentence = _sentence(payload)
        codes = _codes(payload, "code", "type", "status", "error_code")
        if is_success and not sentence:
            return None
    return _judge(sentence, codes, is_success)


def without_account(sentence: str) -> str:
    """The sentence without ids of our account, for a caller."""
    return _ACCOUNT_IDS.sub("[id]", sentence)


def _sentence(error: dict[str, Any]) -> str:
    for key in ("message", "detail", "errors", "msg", "status_msg", "error_msg", "error_message"):
        value = error.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict):
            value = next((value[k] for k in ("message", "msg", "error") if k in value), None)
        if isinstance(value, str) and value:
            return value
    return ""


def _codes(error: dict[str, Any], *keys: str) -> list[str]:
    codes = (error.get(key) for key in keys)
    return [str(c).lower()[:100] for c in codes if isinstance(c, str | int) and c is not False]


def _judge(sentence: str, codes: list[str], is_success: bool) -> ErrorObject | None:  # noqa: FBT001  # private
    said = [code for code in codes if code not in _NO_ERROR]
    if is_success and not said and sentence.lower() in _NO_ERROR:
        return None
    if is_success and codes and not said:  # e.g. code 0, "request succeeded"
        return None
    return ErrorObject(sentence, _find(said, sentence, is_success))


def _find(codes: list[str], sentence: str, is_success: bool) -> Finding | None:  # noqa: FBT001  # private
    found = next((_FINDING_OF_CODE[code] for code in codes if code in _FINDING_OF_CODE), None)
    words = _of_words(sentence)
    if found is None or (found is Finding.RATE_LIMITED and words is Finding.TOO_LONG):
        found = words  # a request that is larger than the limit: waiting can't help
    if not is_success:
        return found
    for code in codes:
        if code.isdigit() and 400 <= int(code) < 600:  # HTTP's own classes of status
            return policy.find(int(code), found)
    return found or next(filter(None, map(_FINDING_OF_GENERAL_CODE.get, codes)), None)


def _of_words(sentence: str) -> Finding | None:
    start = sentence[:_SENTENCE_CHARS]
    for finding, words in _FINDING_OF_WORDS.items():
        if words.search(start):
            return finding
    return None
