"""How every process of the service logs."""

from __future__ import annotations

import logging
import os
import sys


def configure_logging() -> None:
    """One line per record on stderr: time, level, process, message."""
    level = os.environ.get("MODISTE_LOG_LEVEL", "").strip().upper() or "INFO"
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)-7s %(process)d %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    for library in ("uvicorn", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))
