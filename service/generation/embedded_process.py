"""The process of an embedded language model, started by ``service.generation.embedded``: JSON lines in, JSON lines out.

In:  {"number", "prompt", "max_new_tokens", "temperature", "top_p", "regex"}   write
     {"stop": number}                                                          write no further
Out: {"number": 0}                                                             the model is loaded
     {"number", "text", "tokens", "cut_off"}                                   what was written
     {"number", "refused"}, {"number", "unusable"}                             why not: the prompt, the model

It ends when its input does, or its parent, or when nobody reads what it says.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from model_store.errors import ModisteError
from model_store.language_model import CannotWrite, EmbeddedLanguageModel
from model_store.tokens import Tokenizer
from service.lifeline import follow


def main() -> int:
    """Answer until the input ends. Arguments: llm_embedded folder, llm folder, threads, the parent's process."""
    folder, llm, threads, parent = sys.argv[1:]
    follow(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group, and the parent decides
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a parent that has just ended is no error to tell of
    output = _own_output()
    try:
        model = EmbeddedLanguageModel(Path(folder), Tokenizer.of_model(Path(llm)), int(threads))
    except ModisteError as error:
        _say(output, {"number": 0, "unusable": str(error)})
        return 1
    _say(output, {"number": 0})
    jobs = _Jobs()
    threading.Thread(target=jobs.read, args=(sys.stdin.buffer,), daemon=True).start()
    while (job := jobs.next()) is not None:
        number = job.pop("number")
        _say(output, {"number": number, **_answer(model, job, partial(jobs.stopped, number))})
    return 0


class _Jobs:
    """What is to be written, read by one thread while another writes."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stopped = 0  # jobs up to this number need not be written any more: they come in order
        self._ended = False

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in messages until there are no more."""
        for line in lines:
            message: dict[str, Any] = orjson.loads(line)
            if "stop" in message:
                self._stopped = message["stop"]
            else:
                self._jobs.put(message)
        self._ended = True
        self._jobs.put(None)

    def next(self) -> dict[str, Any] | None:
        """The next job, once there is one; None at the end."""
        return self._jobs.get()

    def stopped(self, number: int) -> bool:
        """Whether nobody waits for this job any more."""
        return self._ended or number <= self._stopped


def _answer(model: EmbeddedLanguageModel, job: dict[str, Any], stopped: Callable[[], bool]) -> dict[str, Any]:
    try:
        written = model.write(**job, stopped=stopped)
    except CannotWrite as error:
        return {"refused": str(error)}
    except ModisteError as error:
        return {"unusable": str(error)}
    return {"text": written.text, "tokens": written.tokens, "cut_off": written.cut_off}


def _own_output() -> BinaryIO:
    """The standard output, for answers alone: what libraries print there goes to the standard error instead."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return output


def _say(output: BinaryIO, message: dict[str, Any]) -> None:
    output.write(orjson.dumps(message) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
