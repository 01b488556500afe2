"""API keys, and what each may call. Only their SHA-256 is kept, so that nothing that is written down shows one."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

Scope = Literal["events", "read", "admin"]
"""``events``: telling what customers do. ``read``: recommendations, similar articles, search. ``admin``: all, the
catalogue, bundles and what is stored about customers included."""

ALL: frozenset[Scope] = frozenset(get_args(Scope))
LEAST_LENGTH = 16  # characters
_DIGEST_PREFIX = "sha256:"
_NAMED = re.compile(rf"((?:{'|'.join(get_args(Scope))})(?:\+(?:{'|'.join(get_args(Scope))}))*):(.*)", re.DOTALL)
_READS = re.compile(r"/v1/(?:customers/[^/]+/recommendations|articles/[^/]+/similar|search)")


class ApiKey(NamedTuple):
    """SHA-256 of a key, and what it is good for."""

    digest: bytes
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether a call of this kind is allowed."""
        return scope in self.scopes or "admin" in self.scopes


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Keys separated by commas, each as it is or as ``sha256:<64 hexadecimal digits>``, and good for all.

    What stands before is what it is good for: ``read:…``, ``events+read:sha256:…``. Raises ValueError, also for a key
    that stands there twice, since only one of its entries could hold.
    """
    keys = tuple(_parse(entry.strip()) for entry in text.split(",") if entry.strip())
    digests = [key.digest for key in keys]
    for number, digest in enumerate(digests):
        if (first := digests.index(digest)) < number:
            raise ValueError(
                f"entries {first + 1} and {number + 1} are the same key; name all that it is good for in one of them, "
                "as in 'events+read:…'"
            )
    return keys


def _parse(entry: str) -> ApiKey:
    named = _NAMED.fullmatch(entry)
    scopes = ALL if named is None else frozenset(scope for scope in ALL if scope in named[1].split("+"))
    return ApiKey(_digest(entry if named is None else named[2]), scopes)


def _digest(key: str) -> bytes:
    if key.startswith(_DIGEST_PREFIX):
        digest = bytes.fromhex(key.removeprefix(_DIGEST_PREFIX))
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError("a key written as sha256:… needs 64 hexadecimal digits")
        return digest
    if len(key) < LEAST_LENGTH:
        raise ValueError(f"each key needs at least {LEAST_LENGTH} characters")
    return hashlib.sha256(key.encode()).digest()


def find_key(keys: Iterable[ApiKey], shown: bytes) -> ApiKey | None:
    """The one that was shown, or None.

    All are compared, each in constant time, so that the time taken tells nothing about any of them.
    """
    digest = hashlib.sha256(shown).digest()
    matching = [key for key in keys if hmac.compare_digest(digest, key.digest)]
    return matching[0] if matching else None


def scope_of(method: str, path: str) -> Scope:
    """What a call needs, by its path as it was sent."""
    if path == "/v1/events":
        return "events"
    return "read" if method in {"GET", "HEAD"} and _READS.fullmatch(path) else "admin"


def usable_as_written(entries: Sequence[str]) -> str | None:
    """The first of some written keys that can be shown as it is written; None where each is named or digested."""
    return next((entry for entry in entries if not _NAMED.match(entry) and not entry.startswith(_DIGEST_PREFIX)), None)
