"""The types of single settings: how each is read from text, and what it may hold."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, BeforeValidator, SecretStr


def _parse_range(value: object) -> object:
    """'2-8' or '3' → (2.0, 8.0) or (3.0, 3.0)."""
    if isinstance(value, str):
        low, _, high = value.partition("-")
        return (low, high or low)
    return value


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] <= value[1] < math.inf:
        raise ValueError("use `low-high` in seconds, as 2-8")
    return value


def _parse_targets(value: object) -> object:
    """'openai:gpt-b, simulated' → (('openai', 'gpt-b'), ('simulated', '')); models may hold ':'."""
    if isinstance(value, str):
        entries = [entry.strip() for entry in value.split(",") if entry.strip()]
        targets = tuple(tuple(entry.partition(":")[::2]) for entry in entries)
        if not all(provider in PROVIDERS for provider, _ in targets):
            raise ValueError(f"use provider:model; the providers are {', '.join(PROVIDERS)}")
        return targets
    return value


def _parse_faults(value: object) -> object:
    """'429=0.05,timeout=0.01' → {'429': 0.05, 'timeout': 0.01}."""
    if isinstance(value, str):
        faults: dict[str, str] = {}
        for entry in filter(None, map(str.strip, value.split(","))):
            kind, _, rate = map(str.strip, entry.partition("="))
            if kind in faults:
                raise ValueError(f"{kind} is given twice")
            faults[kind] = rate
        return faults
    return value


def _check_faults(faults: dict[SimulatedFault, float]) -> dict[SimulatedFault, float]:
    if not all(0 <= rate <= 1 for rate in faults.values()) or sum(faults.values()) > 1 + 1e-9:
        raise ValueError("each rate is between 0 and 1, and so is their sum")
    return faults


def _check_key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]*", key.get_secret_value()):
        raise ValueError("a key is printable ASCII without spaces")
    return key


def _check_base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is not a port
        httpx.URL(url)  # what the client will make of it
    except (ValueError, httpx.InvalidURL):
        raise ValueError("it is not an address") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"\s", url):
        raise ValueError("it starts with http:// or https:// and names a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("it holds no user, password, query or fragment")
    return url.rstrip("/")


def is_openai_itself(url: str) -> bool:
    """OpenAI's own API, also of a region, as eu.api.openai.com."""
    host = urlsplit(url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _parse_boolean(value: object) -> object:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in {"1", "true", "yes", "on"}:
            return True
        if word in {"0", "false", "no", "off"}:
            return False
        raise ValueError("use 1/0, true/false, yes/no or on/off")
    return value


Boolean = Annotated[bool, BeforeValidator(_parse_boolean)]
OptionalBoolean = Annotated[bool | None, BeforeValidator(_parse_boolean)]
Range = Annotated[tuple[float, float], BeforeValidator(_parse_range), AfterValidator(_check_range)]
ProviderName = Literal["anthropic", "openai", "simulated"]
Targets = Annotated[tuple[tuple[ProviderName, str], ...], BeforeValidator(_parse_targets)]
SimulatedFault = Literal["429", "500", "503", "529", "timeout", "malformed"]
Faults = Annotated[
    dict[SimulatedFault, float], BeforeValidator(_parse_faults), AfterValidator(_check_faults)
]
ApiKey = Annotated[SecretStr, AfterValidator(_check_key)]
BaseUrl = Annotated[str, AfterValidator(_check_base_url)]
OFFICIAL_OPENAI_URL = "https://api.openai.com/v1"
Access = Literal["auto", "open", "staff", "off"]
PROVIDERS: tuple[str, ...] = get_args(ProviderName)
