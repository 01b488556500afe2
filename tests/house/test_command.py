"""The command ``modiste``: thin, lazy, and one line for whatever a user can mend."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

import modiste
from model_store.errors import InvalidData


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], None]], None]:
    """Puts a function in the place of ``modiste serve``."""

    def install(body: Callable[[argparse.Namespace], None]) -> None:
        module = ModuleType("house_command")
        module.HELP = "a command"  # type: ignore[attr-defined]
        module.arguments = lambda parser: parser.add_argument("--number", type=int)  # type: ignore[attr-defined]
        module.main = body  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "house_command", module)
        monkeypatch.setitem(modiste.COMMANDS, "serve", ("house_command", "a command"))

    return install


def test_help_lists_every_command_and_imports_no_room() -> None:
    script = (
        "import sys, modiste\n"
        "try: modiste.main(['--help'])\n"
        "except SystemExit: pass\n"
        "rooms = {'service', 'offline', 'torch', 'fastapi', 'redis', 'onnxruntime', 'pyarrow', 'numpy'}\n"
        "assert not rooms & set(sys.modules), rooms & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for name in modiste.COMMANDS:
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", modiste.COMMANDS)
def test_each_command_has_help_and_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        modiste.main([name, "--help"])
    assert ending.value.code == 0
    assert f"usage: modiste {name}" in capsys.readouterr().out


def test_serving_never_imports_torch() -> None:
    script = (
        "import sys\n"
        "import modiste, service.commands.serve, service.commands.backfill, service.commands.bench, service.worker\n"
        "assert 'torch' not in sys.modules and 'offline' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_options_reach_the_command(command: Callable[..., None]) -> None:
    given = []
    command(lambda options: given.append(options.number))
    assert modiste.main(["serve", "--number", "3"]) == 0
    assert given == [3]


def test_a_modiste_error_is_one_line(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: argparse.Namespace) -> None:
        raise InvalidData("must be\npositive", file="articles.parquet", row=3, column="price")

    command(fail)
    assert modiste.main(["serve"]) == 1
    expected = "modiste serve: articles.parquet, row 3, column 'price': must be positive\n"
    assert capsys.readouterr().err == expected


def test_ctrl_c_is_said_and_has_its_status(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(options: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    command(interrupt)
    assert modiste.main(["serve"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_keeps_its_trace(command: Callable[..., None]) -> None:
    def fail(options: argparse.Namespace) -> None:
        raise ZeroDivisionError

    command(fail)
    with pytest.raises(ZeroDivisionError):
        modiste.main(["serve"])


@pytest.mark.parametrize("words", [[], ["sew"], ["serve", "--nonsense"], ["serve", "--number", "many"]])
def test_wrong_use_is_status_2(words: list[str], command: Callable[..., None]) -> None:
    command(lambda options: None)
    with pytest.raises(SystemExit) as ending:
        modiste.main(words)
    assert ending.value.code == 2
