import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from service.engine.slots import Slots, digest


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 5))
def test_slots_belong_to_those_who_were_asked_for_last(asked, most):
    slots, lately, of = Slots(most), [], {}
    for number in asked:
        key = digest(b"%d" % number)
        slot = slots.find(key)
        assert (slot is not None) == (number in lately)
        if slot is None:
            slot = slots.give(key)
            if len(lately) == most:
                assert slot == of.pop(lately.pop(0))
        else:
            assert slot == of[number]
            lately.remove(number)
        of[number] = slot
        lately.append(number)
        assert len(set(of.values())) == len(of) <= most
        assert slot in range(most)


def test_slots_take_nearly_all_their_memory_before_the_first_question():
    tracemalloc.start()
    try:
        slots = Slots(2_000)
        empty, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            slots.give(digest(b"%d" % number))
        full, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert empty <= full < 1.5 * empty  # a dict doubles its table once when keys go and come


def test_digests_tell_lists_of_parts_apart():
    assert len({digest(), digest(b""), digest(b"ab"), digest(b"a", b"b"), digest(b"", b"ab"), digest(b"ab", b"")}) == 6
