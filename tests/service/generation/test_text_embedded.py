"""The embedded language model's process where it fails; that it writes, the contract suite shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from language_model_backends import ROOT, TinyModel, tiny_model

from service.errors import LanguageModelUnavailable
from service.generation import embedded
from service.generation.embedded import EmbeddedTextGenerator
from service.generation.text import Writing
from service.lifeline import is_alive

LIKELIEST = Writing(max_new_tokens=100, temperature=0.0)
ENDLESS = Writing(max_new_tokens=600, temperature=0.0, regex="[a-z ]{2000,3000}")
Open = Callable[..., EmbeddedTextGenerator]


@pytest.fixture(scope="module")
def model() -> TinyModel:
    return tiny_model()


@pytest.fixture
async def open_model(model: TinyModel) -> AsyncIterator[Open]:
    made: list[EmbeddedTextGenerator] = []

    def open_one(writing: Writing = LIKELIEST, folder: Path = model.embedded, **how: float) -> EmbeddedTextGenerator:
        made.append(EmbeddedTextGenerator(folder, model.llm, writing, **{"timeout": 60.0, **how}))  # type: ignore[arg-type]
        return made[-1]

    yield open_one
    for generator in made:
        await generator.aclose()


async def test_a_process_that_is_killed_fails_what_it_wrote_and_is_replaced(open_model: Open, model: TinyModel) -> None:
    generator, prompt = open_model(ENDLESS), model.prompts(1)[0]
    await generator.ready()
    running, killed = asyncio.create_task(generator.write(prompt)), generator.pid
    await asyncio.sleep(0.01)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(LanguageModelUnavailable, match="ended with status -9"):
        await running
    assert generator.pid is None
    assert (await generator.write(prompt)).text
    assert generator.pid not in {None, killed}


async def test_a_process_that_hangs_is_killed_and_replaced(
    open_model: Open, model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_LIMIT", 0.1)
    generator, prompt = open_model(timeout=0.1), model.prompts(1)[0]
    await generator.ready()
    hanging = generator.pid
    assert hanging is not None
    os.kill(hanging, signal.SIGSTOP)
    with pytest.raises(LanguageModelUnavailable, match=r"took longer than 0\.1 s"):
        await generator.write(prompt)
    assert generator.pid is None
    await generator.ready()
    assert generator.pid not in {None, hanging}


async def test_one_that_takes_too_long_is_stopped_and_the_process_kept(open_model: Open, model: TinyModel) -> None:
    generator, prompt = open_model(ENDLESS, timeout=0.01), model.prompts(1)[0]
    await generator.ready()
    process = generator.pid
    with pytest.raises(LanguageModelUnavailable, match=r"took longer than 0\.01 s"):
        await generator.write(prompt)
    assert generator.pid == process
    assert process is not None
    assert is_alive(process)


async def test_while_it_writes_the_event_loop_goes_on(open_model: Open, model: TinyModel) -> None:
    generator, prompt, turns = open_model(ENDLESS), model.prompts(1)[0], 0
    await generator.ready()
    running = asyncio.create_task(generator.write(prompt))
    while not running.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert (await running).tokens == ENDLESS.max_new_tokens
    assert turns > 10


@pytest.mark.parametrize("name", ["model.onnx", "genai_config.json", "tokenizer.json"])
async def test_a_damaged_model_is_told_at_once_and_not_tried_again(
    open_model: Open, model: TinyModel, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(model.embedded, tmp_path / "llm_embedded")
    (folder / name).write_bytes(b"{")
    generator = open_model(folder=folder)
    for call in (generator.ready(), generator.write([5]), generator.ready()):
        with pytest.raises(LanguageModelUnavailable, match="llm_embedded"):
            await call
    assert generator.pid is None


async def test_a_process_that_dies_while_it_starts_is_not_started_at_every_call(
    open_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = open_model()
    generator._command = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(LanguageModelUnavailable, match="ended with status 3"):
        await generator.ready()
    with pytest.raises(LanguageModelUnavailable, match="ended a moment ago"):
        await generator.ready()


async def test_how_a_process_ended_is_told_truly_on_a_busy_machine(open_model: Open) -> None:
    spin = ["/bin/sh", "-c", "while :; do :; done"]
    with contextlib.ExitStack() as busy:
        for _ in range(2 * (os.cpu_count() or 1)):
            busy.callback(busy.enter_context(subprocess.Popen(spin)).kill)  # noqa: ASYNC220 - it never blocks
        for _ in range(20):
            generator = open_model()
            generator._command = ["/bin/sh", "-c", "exit 3"]
            with pytest.raises(LanguageModelUnavailable, match="ended with status 3"):
                await generator.ready()


async def test_a_program_that_is_not_there(open_model: Open) -> None:
    generator = open_model()
    generator._command = ["/nowhere/python"]
    with pytest.raises(LanguageModelUnavailable, match="cannot be started"):
        await generator.ready()


async def test_closing_ends_the_process(open_model: Open) -> None:
    generator = open_model()
    await generator.ready()
    process = generator.pid
    assert process is not None
    await generator.aclose()
    assert not is_alive(process)


_PARENT = """
import asyncio, sys, time
from pathlib import Path
from service.generation.embedded import EmbeddedTextGenerator
from service.generation.text import Writing

async def main():
    generator = EmbeddedTextGenerator(Path(sys.argv[1]), Path(sys.argv[2]), Writing())
    await generator.ready()
    print(generator.pid, flush=True)
    time.sleep(600)

asyncio.run(main())
"""


def test_it_does_not_outlive_a_parent_that_is_killed(model: TinyModel) -> None:
    command = [sys.executable, "-c", _PARENT, str(model.embedded), str(model.llm)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        assert is_alive(process)
        parent.kill()
        parent.wait()
        ended = os.pidfd_open(process) if is_alive(process) else None
        if ended is not None:
            assert select.select([ended], [], [], 60)[0], "the process still runs"
            os.close(ended)


def test_a_process_whose_parent_no_longer_listens_ends_without_a_word(tmp_path: Path) -> None:
    """Here it would say that there is no model."""
    listens, says = os.pipe()
    os.close(listens)
    command = [sys.executable, "-m", "service.generation.embedded_process", *[str(tmp_path)] * 2, "1", str(os.getpid())]
    ended = subprocess.run(command, cwd=ROOT, stdout=says, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(says)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, "")
