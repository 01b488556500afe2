"""How a customer's records are written as bytes. Compact, versioned, and never pickled.

Log entry     kind (1 byte), timestamp (5 bytes), then article_id, order_id and position, parted by NUL, which no id
              can contain.
Session       JSON: one row ``[timestamp, event_id, type, article_id or query, position, order_id]`` per event, oldest
              first; nulls at a row's end are left out. JSON because a Lua script edits it.
State         header, memory, then texts parted by NUL: bundle, event, article and order of the pending purchase, and
              the three lists of articles. A checksum stands in front.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson

from model_store import MEMORY_SIZE
from model_store.history import Purchase
from model_store.records import Event, EventType
from service.errors import StoreUnavailable
from service.state.customer import CustomerState, Revision

_PURCHASE, _RETURN = 1, 2
_KINDS = {_PURCHASE: EventType.PURCHASE, _RETURN: EventType.RETURN}

_STATE_FORMAT = 2  # from 2 on, what was bought stands in order of its latest purchase
# checksum; format, has pending; purchased, returned, skipped (counts); log; timestamp of pending; entries, consumed.
# Padded to 48 bytes, so that the memory behind it is aligned and is read without a copy.
_HEADER = struct.Struct("<IBBHIIIQqII4x")
_FLOAT = np.dtype("<f4")
_MEMORY_BYTES = MEMORY_SIZE * 4
_HIDDEN_AT = _HEADER.size
_CELL_AT = _HIDDEN_AT + _MEMORY_BYTES
_TEXTS_AT = _CELL_AT + _MEMORY_BYTES


_EVENT_FIELDS = set(Event.model_fields)


def stored_event(
    customer_id: str,
    timestamp: int,
    event_id: str,
    kind: EventType,
    article_id: str | None,
    query: str | None,
    order_id: str | None,
    position: int | None,
) -> Event:
    """An event whose fields were validated when they were stored: the same object, at a third of the time."""
    event = Event.__new__(Event)
    object.__setattr__(
        event,
        "__dict__",
        {
            "event_id": event_id,
            "type": kind,
            "customer_id": customer_id,
            "article_id": article_id,
            "query": query,
            "timestamp": timestamp,
            "order_id": order_id,
            "position": position,
        },
    )
    object.__setattr__(event, "__pydantic_fields_set__", _EVENT_FIELDS)
    object.__setattr__(event, "__pydantic_extra__", None)
    object.__setattr__(event, "__pydantic_private__", None)
    return event


def pack_log_entry(
    kind: EventType, timestamp: int, article_id: str, order_id: str | None, position: int | None
) -> bytes:
    """A purchase or return as bytes; its event id is the field it is kept under."""
    code = _PURCHASE if kind is EventType.PURCHASE else _RETURN
    if order_id is None and position is None:
        text = article_id
    else:
        text = f"{article_id}\0{order_id or ''}\0{position or ''}".rstrip("\0")
    return (code << 40 | timestamp).to_bytes(6, "big") + text.encode()


def unpack_log_entry(customer_id: str, event_id: str, packed: bytes) -> Event:
    """The event that ``pack_log_entry`` wrote."""
    kind = _KINDS.get(packed[0])
    if kind is None:
        raise StoreUnavailable(
            f"the log of customer '{customer_id}' holds an entry of unknown kind {packed[0]}: "
            "a newer release wrote it, so run that one"
        )
    article_id, *rest = packed[6:].decode().split("\0")
    order_id = (rest[0] or None) if rest else None
    position = int(rest[1]) if len(rest) > 1 else None
    timestamp = int.from_bytes(packed[1:6], "big")
    return stored_event(customer_id, timestamp, event_id, kind, article_id, None, order_id, position)


def session_row(event: Event) -> list[Any]:
    """A click or search as a row of the session."""
    subject = event.article_id or event.query
    row: list[Any] = [event.timestamp, event.event_id, event.type.value, subject, event.position, event.order_id]
    while row[-1] is None:
        row.pop()
    return row


def pack_session(events: Iterable[Event]) -> bytes:
    """Rows of a session as JSON."""
    return orjson.dumps([session_row(event) for event in events])


def unpack_session(customer_id: str, packed: bytes | None) -> tuple[Event, ...]:
    """The events of a session, oldest first."""
    if not packed:
        return ()
    return tuple(_session_event(customer_id, row) for row in orjson.loads(packed))


def unpack_session_ids(packed: bytes | None) -> tuple[str, ...]:
    """The event ids of a session, oldest first."""
    return tuple(row[1] for row in orjson.loads(packed)) if packed else ()


def _session_event(customer_id: str, row: list[Any]) -> Event:
    timestamp, event_id, kind, subject, position, order_id = row + [None] * (6 - len(row))
    article_id, query = (None, subject) if kind == EventType.SEARCH.value else (subject, None)
    return stored_event(customer_id, timestamp, event_id, EventType(kind), article_id, query, order_id, position)


def pack_state(state: CustomerState, revision: Revision) -> bytes:
    """A state, and the revision of the log that it was derived from, as bytes: about 2.1 KB and the articles' ids."""
    pending = state.pending
    texts = [state.bundle]
    if pending is not None:
        texts += (pending.event_id, pending.article_id, pending.order_id or "")
    texts += (*state.purchased, *state.returned, *state.skipped)
    body = b"".join(
        (
            _HEADER.pack(
                0,
                _STATE_FORMAT,
                pending is not None,
                0,
                len(state.purchased),
                len(state.returned),
                len(state.skipped),
                revision.log,
                0 if pending is None else pending.timestamp,
                revision.entries,
                state.consumed,
            ),
            state.hidden.astype("<f4", copy=False).tobytes(),
            state.cell.astype("<f4", copy=False).tobytes(),
            "\0".join(texts).encode(),
        )
    )[4:]
    return zlib.crc32(body).to_bytes(4, "little") + body


def unpack_state(packed: bytes | None) -> tuple[CustomerState, Revision] | None:
    """What ``pack_state`` wrote, or None where there is nothing, or nothing that this release can read."""
    if packed is None or len(packed) < _TEXTS_AT:
        return None
    checksum, version, has_pending, _, purchased, returned, skipped, log, timestamp, entries, consumed = (
        _HEADER.unpack_from(packed)
    )
    if version != _STATE_FORMAT or zlib.crc32(memoryview(packed)[4:]) != checksum:
        return None
    texts = packed[_TEXTS_AT:].decode().split("\0")
    pending = Purchase(timestamp, texts[1], texts[2], texts[3] or None) if has_pending else None
    articles = _split(texts[4 if has_pending else 1 :], (purchased, returned, skipped))
    state = CustomerState(
        texts[0],
        consumed,
        np.frombuffer(packed, _FLOAT, MEMORY_SIZE, _HIDDEN_AT),
        np.frombuffer(packed, _FLOAT, MEMORY_SIZE, _CELL_AT),
        pending,
        *articles,
    )
    return state, Revision(log, entries)


def _split(texts: Sequence[str], sizes: Iterable[int]) -> Iterable[tuple[str, ...]]:
    start = 0
    for size in sizes:
        yield tuple(texts[start : start + size])
        start += size
