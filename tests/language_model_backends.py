"""Tiny language models as their backends take them: exported for onnxruntime-genai, and behind a real vLLM server."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from tiny_language_models import Architecture, tiny_articles, tiny_language_model, tiny_prompt

from model_store.tokens import Tokenizer
from offline.embedded_llm import export_embedded

ROOT = Path(__file__).parents[1]
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
START_LIMIT = 240.0  # seconds for a vLLM server to start in, on a busy machine
STOP_LIMIT = 20.0
_FOLLOW = (  # no server outlives the tests, even where they are killed
    "import os, sys; from service.lifeline import follow; follow(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
)


class TinyModel(NamedTuple):
    """A tiny model of random weights: ``llm``, its Hugging Face directory, and ``embedded``, its export in float32."""

    llm: Path
    embedded: Path

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.of_model(self.llm)

    def prompts(self, count: int, actions: int = 2) -> list[list[int]]:
        """Token ids of prompts about as many articles."""
        tokenizer = self.tokenizer
        return [tokenizer.encode_prompt(tiny_prompt(article, actions)) for article in tiny_articles(count)]


@cache
def tiny_model(architecture: Architecture = "llama") -> TinyModel:
    """The model of an architecture, exported once per test session."""
    llm = tiny_folder(architecture)
    export_embedded(llm, llm.with_name("embedded"), precision="fp32")
    return TinyModel(llm, llm.with_name("embedded"))


@cache
def tiny_folder(architecture: Architecture) -> Path:
    """The Hugging Face directory of a tiny model, made once per test session."""
    folder = Path(tempfile.mkdtemp(prefix="modiste-llm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tiny_language_model(folder / "llm", architecture)


@cache
def vllm_url() -> str:
    """The URL of the session's vLLM server, which serves the tiny Llama and ends with Python."""
    context = running_vllm(tiny_folder("llama"))
    url = context.__enter__()
    atexit.register(context.__exit__, None, None, None)
    return url


@contextmanager
def running_vllm(llm: Path, guidance: bool = True) -> Iterator[str]:
    """The URL of a real vLLM server over a model's directory, stopped at the end; the test is skipped without vLLM.

    ``guidance``: with the embedded model's engine for structured output, else with vLLM's own choice.
    """
    if not VLLM_PYTHON.exists():
        pytest.skip(f"{VLLM_PYTHON} does not exist: run 'make test-vllm', which makes it")
    port = _free_port()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            _command(llm, port, guidance),
            cwd=ROOT,
            env=_environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _wait(f"http://127.0.0.1:{port}", process, output)
            yield f"http://127.0.0.1:{port}"
        finally:
            _end(process)


def _command(llm: Path, port: int, guidance: bool) -> list[str]:
    command = [sys.executable, "-c", _FOLLOW, str(os.getpid()), str(VLLM_PYTHON)]
    command += ["-m", "vllm.entrypoints.openai.api_server", "--model", str(llm), "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "1024", "--max-num-seqs", "16"]
    command += ["--enable-prefix-caching", "--enforce-eager"]
    return [*command, "--structured-outputs-config", '{"backend": "guidance"}'] if guidance else command


def _environment() -> dict[str, str]:
    mine = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return {**os.environ, **mine}


def _wait(url: str, process: subprocess.Popen[bytes], output: tempfile._TemporaryFileWrapper[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            output.seek(0)
            pytest.fail("vLLM did not start:\n" + output.read().decode(errors="replace")[-4_000:])
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url + "/health", timeout=5).status_code == httpx2.codes.OK
    except httpx2.HTTPError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, and then make whatever is left of it, its engine's process included."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
