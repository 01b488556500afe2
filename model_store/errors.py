"""The exceptions that cross a room's wall. Every message says what was wrong and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class ModisteError(Exception):
    """Base of all errors that are reported to a user in one line, without a stack trace."""


class InvalidData(ModisteError):
    """A data set breaks the contract of its tables.

    ``file`` is the table's file name, ``row`` counts rows from 0 in file order, ``column`` names the column; each may
    be None where the fault lies with something larger.
    """

    def __init__(self, message: str, *, file: str | None = None, row: int | None = None, column: str | None = None):
        self.file, self.row, self.column = file, row, column
        place = ", ".join(
            part
            for part in (
                file,
                None if row is None else f"row {row}",
                None if column is None else f"column '{column}'",
            )
            if part
        )
        super().__init__(f"{place}: {message}" if place else message)


class InvalidRecord(ModisteError):
    """One article or event breaks a rule. ``field`` names the offending field where there is one."""

    def __init__(self, message: str, *, field: str | None = None):
        self.field = field
        super().__init__(f"{field}: {message}" if field else message)


class InvalidBundle(ModisteError):
    """A bundle is damaged, of an unknown format, or does not compute what it promises."""


class InvalidConfig(ModisteError):
    """A setting, a configuration file or the installation itself is unusable."""


class TrainingError(ModisteError):
    """Training cannot go on: NaN loss, an empty validation window, nothing to learn from."""


def exit_status(command: str, work: Callable[[], object]) -> int:
    """Do a command's ``work``: a ModisteError becomes one line on stderr and status 1, Ctrl-C status 130."""
    try:
        work()
    except ModisteError as error:
        print(f"{command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
