"""service.keys: what is written in the setting, and what each key is good for then."""

from __future__ import annotations

import hashlib

import pytest

from service.keys import ALL, find_key, parse_keys, scope_of, usable_as_written

KEY, OTHER = "a-key-of-sixteen-characters", "read:this-is-another-key"


def test_a_key_is_good_for_what_stands_before_it() -> None:
    digest = hashlib.sha256(b"third key, long enough").hexdigest()
    keys = parse_keys(f" {KEY},read:{KEY}2 ,events+read:sha256:{digest}, admin:{KEY}4,")
    assert [key.scopes for key in keys] == [ALL, {"read"}, {"events", "read"}, {"admin"}]
    assert keys[2].digest == bytes.fromhex(digest)
    assert [key.may("events") for key in keys] == [True, False, True, True]
    assert [key.may("admin") for key in keys] == [True, False, False, True]


@pytest.mark.parametrize("entry", ["write:" + KEY, "read+:" + KEY, "reader:" + KEY, ":" + KEY, "a:b:" + KEY])
def test_what_names_no_scope_belongs_to_the_key(entry: str) -> None:
    (key,) = parse_keys(entry)
    assert key == (hashlib.sha256(entry.encode()).digest(), ALL)


def test_only_a_known_key_is_found() -> None:
    keys = parse_keys(f"{KEY},{OTHER}")
    assert find_key(keys, KEY.encode()) == keys[0]
    assert find_key(keys, b"this-is-another-key") == keys[1]
    for shown in (b"", OTHER.encode(), KEY.encode() + b" ", keys[0].digest, b"sha256:" + keys[0].digest.hex().encode()):
        assert find_key(keys, shown) is None


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/events", "events"),
        ("GET", "/v1/customers/anna/recommendations", "read"),
        ("GET", "/v1/articles/a%2F1/similar", "read"),
        ("GET", "/v1/search", "read"),
        ("HEAD", "/v1/search", "read"),
        ("GET", "/v1/customers/anna", "admin"),
        ("GET", "/v1/customers/recommendations", "admin"),
        ("GET", "/v1/customers/anna/recommendations/", "admin"),
        ("GET", "/v1/customers/a/b/recommendations", "admin"),
        ("DELETE", "/v1/customers/anna", "admin"),
        ("DELETE", "/v1/customers/x%2Frecommendations", "admin"),
        ("PUT", "/v1/articles", "admin"),
        ("PATCH", "/v1/stock", "admin"),
        ("POST", "/v1/bundles/v1/activate", "admin"),
        ("POST", "/v1/search", "admin"),
        ("GET", "/anything", "admin"),
    ],
)
def test_a_call_needs_what_it_does(method: str, path: str, scope: str) -> None:
    assert scope_of(method, path) == scope


def test_only_a_plain_key_can_be_shown_again() -> None:
    assert usable_as_written([f"read:{KEY}", "sha256:" + "0" * 64]) is None
    assert usable_as_written([f"read:{KEY}", KEY]) == KEY
