"""From other people's files to a data set (design §3, §8). One module per format, all behind ``base.Importer``."""

from __future__ import annotations

from collections.abc import Mapping

from offline.importers.base import Importer
from offline.importers.hm import HmImporter
from offline.importers.rtr import RtrImporter

IMPORTERS: Mapping[str, type[Importer]] = {"hm": HmImporter, "rtr": RtrImporter}
"""What ``modiste import <name> FOLDER OUT`` runs; a further format is a class and a line here."""
