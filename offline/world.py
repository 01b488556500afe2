"""The processes that train together (``torchrun``), each on its own device. One process alone is a world of size 1."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from model_store.errors import InvalidConfig

_PATIENCE = timedelta(hours=12)  # the others wait while the first process embeds a catalogue's pictures


@dataclass(frozen=True)
class World:
    """The process at hand: its ``rank`` among ``size``, and where it computes. Rank 0 alone writes and reports."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (a device is immutable)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum of every process's ``value``, outside the gradient."""
        value = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def shared(self, value: float) -> float:
        """The first process's ``value``, in every process."""
        if self.size == 1:
            return value
        holder = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(holder, src=0)
        return float(holder)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """Where there are several processes, end this one with status 0, all that it had to do being done.

        DistributedDataParallel keeps gloo's threads beyond the group's end (torch 2.13), and an interpreter that ends
        over them now and then aborts: ``terminate called without an active exception``.
        """
        if self.size > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


@contextmanager
def open_world(device: str, threads: int = 0) -> Iterator[World]:
    """The world that ``torchrun`` names in its environment variables, or one of this process alone.

    ``device``: auto, cpu or cuda. Raises InvalidConfig where CUDA is asked for and absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidConfig(
            "device: 'cuda' is asked for, but torch finds no CUDA device here; expected 'cpu' or 'auto'"
        )
    if threads:
        torch.set_num_threads(threads)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=place)
        return
    if cuda:
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield World(dist.get_rank(), size, place)
    finally:
        dist.destroy_process_group()


@contextmanager
def joined_world(rank: int, size: int, port: int, threads: int) -> Iterator[World]:
    """A world of ``size`` processes on this CPU, who meet at ``port``, as if ``torchrun`` had started them."""
    if size == 1:
        yield World()
        return
    names = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": threads,
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: str(value) for name, value in names.items()})
    try:
        with open_world("cpu", threads) as world:
            yield world
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
