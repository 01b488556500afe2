"""Just enough reading of a Dockerfile to hold it against the code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field


@dataclass
class Stage:
    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, instruction: str) -> list[str]:
        return [value for name, value in self.instructions if name == instruction]


def parse_dockerfile(text: str) -> dict[str, Stage]:
    """Stages by name, in order."""
    stages: dict[str, Stage] = {}
    stage = None
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        instruction, _, value = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = value.partition(" AS ")
            stage = stages[name] = Stage(name, base)
        elif stage is not None:
            stage.instructions.append((instruction, value.strip()))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and all that it is built on, bottom first."""
    stage = stages[name]
    return [*(lineage(stages, stage.base) if stage.base in stages else []), stage]


def environment(stages: dict[str, Stage], name: str) -> dict[str, str]:
    """All ENV of a stage and its bases."""
    pairs = [pair for stage in lineage(stages, name) for value in stage.values("ENV") for pair in value.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def exec_form(value: str) -> list[str]:
    """The words of a command in exec form."""
    words: list[str] = json.loads(value)
    return words
