"""The settings of traces, under the names that OpenTelemetry gives its variables."""

from __future__ import annotations

from pydantic import Field, SecretStr

from generation.conf.base import Group
from generation.conf.fields import CapturesContent, HeaderPairs, Pairs, WebhookUrl


class TraceSettings(Group):
    otel_exporter_otlp_endpoint: WebhookUrl = Field(
        "",
        description="Address of an OpenTelemetry collector's HTTP port, e.g. "
        "`http://127.0.0.1:4318`: each generation is sent to its `/v1/traces` once its row is "
        "stored, as JSON. Empty: none is.",
    )
    otel_exporter_otlp_headers: HeaderPairs = Field(
        SecretStr(""),
        description="Headers for it, e.g. a key: `name=value` pairs, separated by commas; what is "
        "special in a value is percent-encoded.",
    )
    otel_service_name: str = Field(
        "staccato", min_length=1, max_length=200, description="The service's name in traces."
    )
    otel_resource_attributes: Pairs = Field(
        {}, description="What else traces say of it: `name=value` pairs, separated by commas."
    )
    otel_traces_sampler_arg: float = Field(
        1,
        ge=0,
        le=1,
        description="Share of the generations that are sent. If a request comes with a "
        "`traceparent`, its caller decides.",
    )
    otel_instrumentation_genai_capture_message_content: CapturesContent = Field(
        default=False,
        description="Send prompts and answers as well, as far as the log may keep them: "
        "what is hashed, encrypted or not kept is not sent. `true` or `false`.",
    )
