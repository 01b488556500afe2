"""Reading the README, and the part of it that follows from code, the table of settings.

.venv/bin/python tests/house/documents.py      writes that table anew
"""

from __future__ import annotations

import re
from pathlib import Path

from service.settings import Settings, variable

ROOT = Path(__file__).resolve().parents[2]


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def shell_lines() -> list[str]:
    """All commands of the README's shell blocks, comments off."""
    blocks = re.findall(r"```sh\n(.*?)```", readme(), re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def settings_table() -> str:
    """The table of settings as the README must show it."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{field.default}`"
        rows.append(f"| `{variable(name)}` | {default} | {field.description} |")
    return "\n".join(rows)


SETTINGS = re.compile(
    r"(?<=<!-- settings: written by tests/house/documents.py -->\n).*?(?=\n<!-- /settings -->)", re.DOTALL
)


if __name__ == "__main__":
    (ROOT / "README.md").write_text(SETTINGS.sub(lambda _: settings_table(), readme()), encoding="utf-8")
