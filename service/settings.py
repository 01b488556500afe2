"""The service's settings: environment variables, each documented by its field's description.

A variable is called ``MODISTE_`` and the field's name in capitals. One that is empty counts as unset.
"""

from __future__ import annotations

import difflib
import ipaddress
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from model_store.errors import InvalidConfig
from service.keys import ApiKey, parse_keys

log = logging.getLogger(__name__)

PREFIX = "MODISTE_"


def _keys(value: object) -> object:
    return parse_keys(value) if isinstance(value, str) else value


def _port(value: object) -> object:
    if isinstance(value, str) and value.startswith("tcp://"):
        raise ValueError(
            "must be a port number. Kubernetes sets this variable itself for a Service named 'modiste': "
            "put enableServiceLinks: false into the pod's spec"
        )
    return value


def _redis_url(value: str) -> str:
    if urlsplit(value).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must start with redis://, rediss:// or unix://")
    return value


def _otlp_endpoint(value: str) -> str:
    if urlsplit(value).scheme not in {"http", "https"}:
        raise ValueError("must start with http:// or https://")
    return value.rstrip("/").removesuffix("/v1/traces")


def _llm_url(value: str) -> str:
    if value != "off" and urlsplit(value).scheme not in {"http", "https"}:
        raise ValueError("must start with http:// or https://, or be 'off'")
    return value.rstrip("/")


class Settings(BaseModel):
    """All that an operator can set. Frozen: a process reads its environment once, when it starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Any but a loopback address needs MODISTE_API_KEYS.",
    )
    port: Annotated[int, BeforeValidator(_port)] = Field(
        8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one."
    )
    workers: int = Field(1, ge=1, le=256, description="Number of service processes. All share the state in Redis.")
    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(
        None,
        description="Where state lives: redis://, rediss:// or unix:// URL of a Redis 6.2 or Valkey or newer. "
        "Unset: 'modiste serve' starts an embedded one.",
    )
    redis_timeout: float = Field(
        0.5,
        ge=0.3,
        le=60,
        description="Seconds after which a call to Redis counts as failed: events then get 503, recommendations are "
        "served from memory. At least 0.3, since following the catalogue waits up to 0.2 s for a change.",
    )
    redis_connections: int = Field(64, ge=2, le=10_000, description="Most connections to Redis, per process.")
    store: Path = Field(
        Path("model_store/bundles"),
        description="Folder of bundles; its file CURRENT names the one that is served when nothing else was activated.",
    )
    llm_url: Annotated[str, AfterValidator(_llm_url)] | None = Field(
        None,
        description="OpenAI-compatible API of a vLLM that serves the bundle's llm folder, or 'off' for no language "
        "model: nothing is generated then. Unset: each generator runs the bundle's embedded one.",
    )
    llm_api_key: SecretStr | None = Field(None, description="Key that the API of MODISTE_LLM_URL asks for.")
    llm_timeout: float = Field(
        15.0,
        ge=0.1,
        le=600,
        description="Seconds after which one generation counts as failed; it is tried again later.",
    )
    llm_concurrency: int = Field(
        8, ge=1, le=1_000, description="Generations that each generator asks MODISTE_LLM_URL for at once. Embedded: 1."
    )
    generators: int = Field(
        1,
        ge=0,
        le=64,
        description="Processes that let the language model write, started where a bundle holds one. 0: none here; "
        "'python -m service.generation.worker' runs one elsewhere, over the same Redis and bundles.",
    )
    generation_debounce: float = Field(
        0.3,
        ge=0,
        le=60,
        description="Seconds from a customer's event to the writing that it asks for: what else happens until then "
        "goes into the same one.",
    )
    generation_queue: int = Field(
        10_000, ge=1, le=10_000_000, description="Most customers that wait for a generation; beyond, the oldest go."
    )
    log_prompts: bool = Field(
        False,
        description="Log every prompt and what was written to it. They tell what customers do: for debugging only.",
    )
    api_keys: Annotated[tuple[ApiKey, ...], BeforeValidator(_keys)] = Field(
        (),
        repr=False,
        description="Keys that callers of /v1 must show (Authorization: Bearer … or X-API-Key: …), comma-separated, "
        "each once, of at least 16 characters or written as sha256:<64 hexadecimal digits>. What stands before a key "
        "is all that it is good for: 'events:…', 'read:…' or 'events+read:…'; one without, or with 'admin:', is good "
        "for everything. Unset: no key is asked for.",
    )
    rate_limit: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Most requests a second of one API key, over all workers, counted in Redis; beyond, 429. Unset, or "
        "while Redis does not answer: no limit.",
    )
    replay_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="After a change of bundle: the share of one processor core that one of all workers spends on the "
        "states of customers who do not ask. 0: each is replayed when it is asked for, and not before.",
    )
    image_root: Path | None = Field(
        None,
        description="Folder under which PUT /v1/articles finds pictures that are given as a path. Unset: pictures can "
        "only be sent as base64.",
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024, ge=1_024, description="Largest request body in bytes; larger ones get 413."
    )
    max_batch: int = Field(1_000, ge=1, le=1_000, description="Most events, articles or stock levels per call.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to log.")
    log_format: Literal["text", "json"] = Field(
        "text", description="'json': each line of the log is one object, with the request's id where there is one."
    )
    log_requests: bool = Field(
        False, description="Log a line for each request: method, route, status, milliseconds, id; no path, no query."
    )
    lookbook: bool = Field(
        True, description="Serve the lookbook at /, a page on which people see the service work: true or false."
    )
    otlp_endpoint: Annotated[str, AfterValidator(_otlp_endpoint)] | None = Field(
        None,
        description="URL of an OpenTelemetry collector that takes traces (OTLP over HTTP, such as "
        "http://localhost:4318); needs the extra 'tracing'. Unset: no traces are made.",
    )

    @model_validator(mode="after")
    def _keys_where_others_can_reach_it(self) -> Settings:
        if not self.api_keys and not _is_loopback(self.host):
            raise ValueError(
                f"{PREFIX}HOST: '{self.host}' can be reached from other machines, so {PREFIX}API_KEYS must be set too"
            )
        return self

    @model_validator(mode="after")
    def _limits_have_keys_to_count_by(self) -> Settings:
        if self.rate_limit is not None and not self.api_keys:
            raise ValueError(f"{PREFIX}RATE_LIMIT counts by API key, so {PREFIX}API_KEYS must be set too")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from variables. Raises InvalidConfig with one line that names the variable.

        A variable that looks like a misspelt setting is refused; any other unknown one under the prefix is logged.
        """
        given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value.strip()}
        known = {variable(field) for field in cls.model_fields}
        for name in sorted(given.keys() - known):
            _refuse_misspelt(name, known)
        values = {name.removeprefix(PREFIX).lower(): given[name] for name in given.keys() & known}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidConfig(_describe(error)) from None


def variable(field: str) -> str:
    """The environment variable that sets ``field``."""
    return PREFIX + field.upper()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_misspelt(name: str, known: set[str]) -> None:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    if near:
        raise InvalidConfig(f"{name}: there is no such setting; did you mean {near[0]}?")
    log.warning("%s is not a setting of the service; it has no effect", name)


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    return f"{variable(str(first['loc'][0]))}: {message}" if first["loc"] else message
