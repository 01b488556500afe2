"""One look at a customer, from the bytes that are stored and back to them."""

from __future__ import annotations

from service.generation.records import pack_generation, unpack_generation
from service.state.codec import pack_session, pack_state, unpack_session, unpack_session_ids, unpack_state
from service.state.customer import CustomerView, Packed


def unpack_view(customer_id: str, packed: Packed) -> CustomerView:
    """The view that the bytes hold. Session and generation are decoded when they are first asked for."""
    state, revision = unpack_state(packed.state) or (None, None)
    return CustomerView(
        state,
        revision,
        lambda: unpack_session(customer_id, packed.session),
        lambda: unpack_generation(packed.generation),
        lambda: unpack_session_ids(packed.session),
        packed,
    )


def pack_view(view: CustomerView) -> Packed:
    """A view as bytes: those that it was read from, where it was. The state of a customer without purchases is none."""
    packed = view.packed
    if packed is None:
        generation = None if view.generation is None else pack_generation(view.generation)
        packed = Packed(None, pack_session(view.session) if view.session else None, generation)
    if packed.state is None and view.state is not None and view.revision is not None and view.state.knows_any:
        packed = packed._replace(state=pack_state(view.state, view.revision))
    return packed
