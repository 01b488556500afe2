"""service.settings: what the environment may say, and the one line that answers what it may not."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from model_store.errors import InvalidConfig
from service.settings import Settings, variable

KEY = "a-key-of-sixteen-characters"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
OTHER = "another-key-long-enough"


def read(**values: str) -> Settings:
    return Settings.from_environment({variable(name): value for name, value in values.items()})


def test_defaults_serve_this_machine_only() -> None:
    settings = Settings.from_environment({"PATH": "/bin"})
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.store == Path("model_store/bundles")
    assert settings.redis_url is None
    assert settings.llm_url is None


def test_every_setting_is_documented() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_an_empty_variable_counts_as_unset() -> None:
    assert read(port="", redis_url=" ", api_keys="") == Settings()


def test_values_are_read() -> None:
    settings = read(
        port="9001", redis_url="redis://cache:6379/2", llm_url="http://llm:8001/v1/", image_root="/pictures"
    )
    assert settings.port == 9001
    assert settings.redis_url == "redis://cache:6379/2"
    assert settings.llm_url == "http://llm:8001/v1"
    assert settings.image_root == Path("/pictures")


def test_keys_are_kept_as_digests_only() -> None:
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    settings = read(api_keys=f"{KEY}, sha256:{digest}")
    assert [key.digest for key in settings.api_keys] == [bytes.fromhex(DIGEST), bytes.fromhex(digest)]
    assert KEY not in repr(settings)


def test_generation_is_set() -> None:
    settings = read(llm_url="off", llm_timeout="2.5", llm_concurrency="32", generators="0", generation_debounce="0")
    assert (settings.llm_url, settings.llm_timeout, settings.llm_concurrency) == ("off", 2.5, 32)
    assert (settings.generators, settings.generation_debounce, settings.generation_queue) == (0, 0.0, 10_000)
    assert not settings.log_prompts
    assert read(log_prompts="true").log_prompts


def test_the_language_models_key_is_not_shown() -> None:
    settings = read(llm_api_key=KEY)
    assert settings.llm_api_key is not None
    assert settings.llm_api_key.get_secret_value() == KEY
    assert KEY not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("port", "http", "MODISTE_PORT: Input should be a valid integer"),
        ("port", "70000", "MODISTE_PORT: Input should be less than or equal to 65535"),
        ("port", "tcp://10.0.0.7:8000", "MODISTE_PORT: must be a port number. Kubernetes sets"),
        ("workers", "0", "MODISTE_WORKERS: Input should be greater than or equal to 1"),
        ("redis_url", "localhost:6379", "MODISTE_REDIS_URL: must start with redis://, rediss:// or unix://"),
        ("llm_url", "vllm:8001", "MODISTE_LLM_URL: must start with http:// or https://, or be 'off'"),
        ("api_keys", "short", "MODISTE_API_KEYS: each key needs at least 16 characters"),
        ("api_keys", "read:short", "MODISTE_API_KEYS: each key needs at least 16 characters"),
        (
            "api_keys",
            f"read:{KEY},events:{OTHER},sha256:{DIGEST}",
            "MODISTE_API_KEYS: entries 1 and 3 are the same key",
        ),
        ("rate_limit", "5", "MODISTE_RATE_LIMIT counts by API key, so MODISTE_API_KEYS must be set too"),
        ("rate_limit", "0", "MODISTE_RATE_LIMIT: Input should be greater than or equal to 1"),
        ("api_keys", "sha256:abcd", "MODISTE_API_KEYS: a key written as sha256:… needs 64 hexadecimal digits"),
        ("log_level", "loud", "MODISTE_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("redis_timeout", "0.1", "MODISTE_REDIS_TIMEOUT: Input should be greater than or equal to 0.3"),
        ("generators", "-1", "MODISTE_GENERATORS: Input should be greater than or equal to 0"),
        ("llm_timeout", "0", "MODISTE_LLM_TIMEOUT: Input should be greater than or equal to 0.1"),
        ("log_prompts", "perhaps", "MODISTE_LOG_PROMPTS: Input should be a valid boolean"),
        ("max_batch", "1001", "MODISTE_MAX_BATCH: Input should be less than or equal to 1000"),
    ],
)
def test_a_bad_value_is_answered_by_one_line(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        read(**{name: value})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_misspelt_variable_is_refused() -> None:
    with pytest.raises(
        InvalidConfig, match=r"MODISTE_API_KEY: there is no such setting; did you mean MODISTE_API_KEYS"
    ):
        Settings.from_environment({"MODISTE_API_KEY": KEY})


def test_what_kubernetes_adds_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Settings.from_environment({"MODISTE_SERVICE_PORT": "8000"})
    assert "MODISTE_SERVICE_PORT is not a setting" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert read(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "shop.example"])
def test_other_hosts_need_keys(host: str) -> None:
    with pytest.raises(InvalidConfig, match="MODISTE_API_KEYS must be set too"):
        read(host=host)
    assert read(host=host, api_keys=KEY).host == host
