import asyncio
import ctypes
import subprocess
import sys

import pytest

from service import heap

HAS_TRIM = hasattr(ctypes.CDLL(None), "malloc_trim")
SCATTERED = """
import resource
from service.heap import trim

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

blocks = [bytes(3_000) for _ in range(40_000)]
stays = blocks[::200]
blocks.clear()
before = resident()
trim()
print(before, resident(), len(stays))
"""


@pytest.mark.skipif(not HAS_TRIM, reason="this C library has no malloc_trim")
def test_free_memory_among_what_stays_is_given_back():
    run = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True)
    before, after, stays = map(float, run.stdout.split())
    assert stays == 200
    assert before - after > 80  # MiB, of 114 that were scattered


KEPT = """
import sys
from service.heap import trim

freed = [tuple(range(size)) for size in range(2, 20) for _ in range(2_000)]
freed.clear()
before = sys.getallocatedblocks()
trim()
print(before - sys.getallocatedblocks())
"""


def test_what_python_keeps_for_objects_to_come_is_freed():
    run = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 30_000  # of 36,000 tuples


async def test_it_is_done_again_and_again_until_cancelled(monkeypatch):
    trims, thrice = [], asyncio.Event()

    def trim():
        trims.append(1)
        if len(trims) == 3:
            thrice.set()

    monkeypatch.setattr(heap, "trim", trim)
    trimming = asyncio.create_task(heap.keep_trimmed(pause=0.001))
    await thrice.wait()
    trimming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trimming


async def test_a_c_library_without_it_does_without(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    heap.trim()
