"""A real `modiste serve` in a process of its own, for tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from house.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]


def copy_of_the_project(folder: Path) -> Path:
    """All tracked files as they are now, with their times, so that make sees what it would see here."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listing.stdout.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def clean_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment without Modiste's settings, and with ``settings``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODISTE_", "MAKE", "MFLAGS"))}
    return kept | {name: str(value) for name, value in settings.items()}


@dataclass
class Service:
    """A launcher that runs, and what it has said so far."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.said)

    @property
    def url(self) -> str:
        found = re.search(r'ready at ([^\s"]+)', self.text)
        assert found is not None, self.text
        return found.group(1)

    @property
    def curl_lines(self) -> list[list[str]]:
        """The words of the printed lines to paste."""
        return [shlex.split(line) for line in self.text.splitlines() if line.startswith("  curl ")]

    def children(self) -> set[int]:
        """Redis and the workers."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(word) for word in path.read_text().split()}

    def children_named(self, part: str) -> set[int]:
        return {child for child in self.children() if part in _command_line(child)}

    def get(self, path: str) -> tuple[int, Any]:
        return self.call(path)

    def call(self, path: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
        """(status, JSON) of one request."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if content else {}
        request = urllib.request.Request(self.url + path, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(with_signal)
        return self.process.wait(60)


def _command_line(process: int) -> str:
    """Empty where the process has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def started(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Iterator[Service]:
    """A process that serves, in a group of its own; whatever is left of it is killed at the end."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        service = Service(process)
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: service.said.extend(process.stdout or ()), daemon=True)
        reader.start()
        try:
            yield service
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join(30)


def is_up(service: Service) -> bool:
    """Whether it has said all that it says when it is ready. Fails where it has ended instead."""
    assert service.process.poll() is None, service.text
    return "/v1/events\n" in service.text or "the catalogue is empty" in service.text


@contextmanager
def serving(folder: Path, store: Path, *options: str, **settings: object) -> Iterator[Service]:
    """`modiste serve` in ``folder`` over ``store``, ready, on a free port unless another is set."""
    given = {"MODISTE_PORT": 0, "MODISTE_STORE": store} | {f"MODISTE_{key.upper()}": v for key, v in settings.items()}
    command = [sys.executable, "-m", "modiste", "serve", *options]
    with started(command, folder, clean_environment(given)) as service:
        wait_until(lambda: is_up(service), 90)
        yield service
