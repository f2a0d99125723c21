"""The types of single settings: how each is read from text, and which values it accepts."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

if TYPE_CHECKING:
    from collections.abc import Collection

PROVIDERS = ("anthropic", "openai", "simulated")  # ours
_TAKEN = frozenset((*PROVIDERS, "auto", "own"))
_BODY_KEY_BYTES = 32
MAX_PRICE = 1_000_000
_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


class Target(NamedTuple):
    """A provider and one of its models. Where the model is '', the context says which one: any
    of the provider's, or its default."""

    provider: str
    model: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """'openai:gpt-b' or 'simulated' → a target; the model may contain ':'."""
        provider, _, model = text.strip().partition(":")
        return cls(provider, model)

    def checked(self, providers: Collection[str]) -> Target:
        """Returns itself; raises `ValueError` if its provider is none of these."""
        if self.provider not in providers:
            raise ValueError(
                f"use provider:model; the providers are {', '.join(providers)}, not"
                f" {self.provider!r}"
            )
        return self

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}" if self.model else self.provider


class Price(NamedTuple):
    """US dollars per million tokens."""

    input: Decimal
    output: Decimal
    cached: Decimal  # input that the provider read from its cache


def parse_targets(text: str) -> tuple[Target, ...]:
    """'openai:gpt-b, simulated' → (Target('openai', 'gpt-b'), Target('simulated', ''))."""
    return tuple(map(Target.parse, _entries(text)))


def _entries(text: str) -> list[str]:
    return [entry for entry in map(str.strip, text.split(",")) if entry]


def parse_boolean(text: str) -> bool:
    """Raises `ValueError` for any other word than 1/0, true/false, yes/no and on/off."""
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError("use 1/0, true/false, yes/no or on/off") from None


def _parse_range(value: object) -> object:
    """'2-8' or '3' → (2.0, 8.0) or (3.0, 3.0)."""
    if isinstance(value, str):
        low, _, high = value.partition("-")
        return (low, high or low)
    return value


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] <= value[1] < math.inf:
        raise ValueError("use `low-high` in seconds, e.g. 2-8")
    return value


def _parse_models(value: object) -> object:
    """'fast=openai:gpt-b' → {'fast': Target('openai', 'gpt-b')}."""
    if not isinstance(value, str):
        return value
    pairs = _parse_pairs(value, "name=provider:model")
    return {name: Target.parse(target) for name, target in pairs.items()}


def _parse_pairs(text: str, form: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for entry in _entries(text):
        name, sign, value = map(str.strip, entry.partition("="))
        if not sign or not value:
            raise ValueError(f"{entry} is not {form}")
        if name in pairs:
            raise ValueError(f"{name} is given twice")
        pairs[name] = value
    return pairs


def _parse_own_providers(value: object) -> object:
    """'house=yours.providers.House' → {'house': 'yours.providers.House'}."""
    return _parse_pairs(value, "name=dotted.path") if isinstance(value, str) else value


def _check_own_providers(paths: dict[str, str]) -> dict[str, str]:
    for name, path in paths.items():
        if not re.fullmatch("[a-z][a-z0-9_-]{0,31}", name) or name in _TAKEN:
            raise ValueError(
                f"{name} can't be a provider's name: use up to 32 lower-case letters, digits and"
                f" _-, and none of {', '.join(sorted(_TAKEN))}"
            )
        _check_dotted_path(path)
    return paths


def _check_dotted_path(path: str) -> str:
    if path and not re.fullmatch(r"\w+(\.\w+)+", path):
        raise ValueError("use the dotted path of a class, e.g. yours.providers.House")
    return path


def _check_models(models: dict[str, Target]) -> dict[str, Target]:
    for name in models:
        if not re.fullmatch(r"[\w./:@-]{1,100}", name, re.ASCII):
            raise ValueError("a name has up to 100 letters, digits or _./:@-")
    return models


def _parse_prices(value: object) -> object:
    """'openai:gpt-b=2.5/10/0.25' → {Target('openai', 'gpt-b'): Price(2.5, 10, 0.25)}."""
    if not isinstance(value, str):
        return value
    prices: dict[Target, Price] = {}
    for entry in filter(None, map(str.strip, value.split(","))):
        name, sign, text = entry.rpartition("=")
        rates = text.split("/")
        if not sign or len(rates) not in {2, 3}:
            raise ValueError(f"{entry} is not provider:model=input/output or …/cached")
        target = Target.parse(name)
        if target in prices:
            raise ValueError(f"{target} is given twice")
        numbers = [_parse_rate(rate) for rate in rates]
        prices[target] = Price(numbers[0], numbers[1], numbers[-1] if numbers[2:] else numbers[0])
    return prices


def _parse_rate(text: str) -> Decimal:
    try:
        rate = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text} is not a number of US dollars per million tokens") from None
    if not rate.is_finite() or not 0 <= rate <= MAX_PRICE:
        raise ValueError(f"{text} is not between 0 and {MAX_PRICE} US dollars per million tokens")
    return rate


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
        raise ValueError("each rate must be between 0 and 1, and so must their sum")
    return faults


def _check_key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]*", key.get_secret_value()):
        raise ValueError("a key must be printable ASCII without spaces")
    return key


def parse_body_keys(text: str) -> dict[str, bytes]:
    """'new:base64, old:base64' → the keys by their ids, in this order. Raises `ValueError`."""
    keys: dict[str, bytes] = {}
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        key_id, _, encoded = entry.partition(":")
        if not re.fullmatch(r"[\w.-]{1,32}", key_id, re.ASCII) or not encoded:
            raise ValueError(
                f"entry {number} is not id:key; an id has up to 32 letters, digits or _.-"
            )
        if key_id in keys:
            raise ValueError(f"the id {key_id} is given twice")
        try:
            key = b64decode(encoded, validate=True)
        except ValueError:
            raise ValueError(f"the key {key_id} is not in base64") from None
        if len(key) != _BODY_KEY_BYTES:
            raise ValueError(
                f"the key {key_id} has {len(key)} bytes, not {_BODY_KEY_BYTES}; make one with"
                " `openssl rand -base64 32`"
            )
        keys[key_id] = key
    return keys


def _check_body_keys(keys: SecretStr) -> SecretStr:
    parse_body_keys(keys.get_secret_value())
    return keys


def _check_redactor(path: str) -> str:
    if path and not re.fullmatch(r"[\w.]+:[\w.]+", path):
        raise ValueError("use module:callable, e.g. mypackage.privacy:redact")
    return path


def check_base_url(url: str) -> str:
    """Returns the URL without a final slash; raises `ValueError` with the reason."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is not a port
        _check_host(parts.hostname or "")
    except ValueError:
        raise ValueError("it is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it must start with http:// or https:// and name a host")
    if not url.isprintable() or re.search(r"\s", url):
        raise ValueError("it contains a space or a control character")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("it must not contain a user, a password, a query or a fragment")
    return url.rstrip("/")


def _anthropic_url(url: str) -> str:
    """The provider appends /v1/messages, but documentation shows addresses with a part of it."""
    return url.removesuffix("/messages").removesuffix("/v1")


def _openai_url(url: str) -> str:
    """The provider appends /chat/completions; OpenAI's own address is also known without /v1."""
    url = url.removesuffix("/chat/completions")
    return f"{url}/v1" if url == OFFICIAL_OPENAI_URL.removesuffix("/v1") else url


def _check_host(host: str) -> None:
    """Raises `ValueError` if it can be neither a name nor an IP address."""
    host.encode("idna")
    if re.fullmatch(r"[\d.]+|.*:.*", host):
        ip_address(host)


def _read_boolean(value: object) -> object:
    return parse_boolean(value) if isinstance(value, str) else value


def _read_targets(value: object) -> object:
    return parse_targets(value) if isinstance(value, str) else value


def parse_otel_pairs(text: str) -> dict[str, str]:
    """'a=b,c=d%2Ce' → {'a': 'b', 'c': 'd,e'}. Raises `ValueError`."""
    pairs: dict[str, str] = {}
    for number, entry in enumerate(_entries(text), 1):
        name, sign, value = map(str.strip, entry.partition("="))
        if not sign or not re.fullmatch(r"[!-~]+", name):
            raise ValueError(f"entry {number} is not name=value")
        pairs[name] = unquote(value)
    return pairs


def _read_otel_pairs(value: object) -> object:
    return parse_otel_pairs(value) if isinstance(value, str) else value


def _check_headers(headers: SecretStr) -> SecretStr:
    for name, value in parse_otel_pairs(headers.get_secret_value()).items():
        if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
            raise ValueError("a name is not one of an HTTP header")
        if not re.fullmatch(r"[ -~]*", value):
            raise ValueError(f"the value of {name} is not printable ASCII")
    return headers


def _read_captures_content(value: object) -> object:
    """OpenTelemetry's words for where content goes are taken, too; ours goes into spans."""
    words = {"no_content": "0", "event_only": "0", "span_only": "1", "span_and_event": "1"}
    if isinstance(value, str):
        value = words.get(value.strip().lower(), value)
    return _read_boolean(value)


Boolean = Annotated[bool, BeforeValidator(_read_boolean)]
OptionalBoolean = Annotated[bool | None, BeforeValidator(_read_boolean)]
Range = Annotated[tuple[float, float], BeforeValidator(_parse_range), AfterValidator(_check_range)]
Targets = Annotated[tuple[Target, ...], BeforeValidator(_read_targets)]
OwnProviders = Annotated[
    dict[str, str], BeforeValidator(_parse_own_providers), AfterValidator(_check_own_providers)
]
DottedPath = Annotated[str, AfterValidator(_check_dotted_path)]
Prices = Annotated[dict[Target, Price], BeforeValidator(_parse_prices)]
Models = Annotated[dict[str, Target], BeforeValidator(_parse_models), AfterValidator(_check_models)]
SimulatedFault = Literal["429", "500", "503", "529", "timeout", "malformed", "cut", "stall"]
Faults = Annotated[
    dict[SimulatedFault, float], BeforeValidator(_parse_faults), AfterValidator(_check_faults)
]
Pairs = Annotated[dict[str, str], BeforeValidator(_read_otel_pairs)]
HeaderPairs = Annotated[SecretStr, AfterValidator(_check_headers)]
CapturesContent = Annotated[bool, BeforeValidator(_read_captures_content)]
ApiKey = Annotated[SecretStr, AfterValidator(_check_key)]
BodyKeys = Annotated[SecretStr, AfterValidator(_check_body_keys)]
RedactorPath = Annotated[str, AfterValidator(_check_redactor)]
OFFICIAL_OPENAI_URL = "https://api.openai.com/v1"
AnthropicUrl = Annotated[str, AfterValidator(check_base_url), AfterValidator(_anthropic_url)]
OpenAIUrl = Annotated[str, AfterValidator(check_base_url), AfterValidator(_openai_url)]
WebhookUrl = Annotated[str, AfterValidator(lambda url: check_base_url(url) if url else url)]
Access = Literal["auto", "open", "staff", "off"]
