"""``python -m offline.baselines.text_training FOLDER``: train, tune and ask Recformer, in our own environment.

FOLDER is a run's folder ``baselines``, with questions and texts in it; as ``training``, which this one follows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from model_store.errors import exit_status
from offline.baselines import RECFORMER_QUERY, TEXT, questions, texts
from offline.baselines.longformers import Start, from_checkpoint, from_scratch
from offline.baselines.questions import Questions
from offline.baselines.recformer import maker
from offline.baselines.texts import TextQuestions
from offline.baselines.training import Library, command, train_as_told
from offline.baselines.tuning import Maker


def library(folder: Path, start: Start) -> Library:
    """Recformer, for the questions and texts in a run's ``folder``. Raises InvalidConfig where there are none."""
    asked = questions.read(folder / questions.FOLDER)
    words = texts.read(folder / texts.FOLDER, asked)

    def told(model: str, asked: Questions) -> TextQuestions:
        return words.told(asked, searches=model == RECFORMER_QUERY)

    def make(model: str) -> Maker:
        return maker(start, told(model, asked))

    return Library(start.name, make, start.grid, told)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status. A ModisteError becomes one line, Ctrl-C status 130."""
    parser = command("text_training", TEXT)
    parser.add_argument("--checkpoint", metavar="DIR", help="a Longformer's directory (default: from scratch)")
    options = parser.parse_args(arguments)

    def opened() -> Library:
        start = from_checkpoint(Path(options.checkpoint)) if options.checkpoint else from_scratch()
        return library(options.folder, start)

    return exit_status("baselines", lambda: train_as_told(options, TEXT, opened))


if __name__ == "__main__":
    sys.exit(main())
