"""A generator process as it is, but for its language model: that answers every prompt, each after some seconds.

python generator_process.py SECONDS [PARENT]
"""

from __future__ import annotations

import asyncio
import os
import sys

from service.generation.fake import FakeTextGenerator
from service.generation.worker import run
from service.log_lines import configure_logging
from service.settings import Settings

ANSWER = "{<id>a007</id>,<title>Breezy jacket</title>}"

if __name__ == "__main__":
    configure_logging()
    settings = Settings.from_environment(os.environ)
    delay = float(sys.argv[1])
    text = lambda bundle, prompting: FakeTextGenerator(lambda _: ANSWER, delay=delay)  # noqa: E731
    asyncio.run(run(settings, text, margin=1.0))
