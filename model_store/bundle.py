"""A bundle: one immutable, versioned folder of trained artefacts, the only thing that passes from offline to service.

    <store>/CURRENT                names the live version
    <store>/<version>/manifest.json
                      image_encoder.onnx  fashion_dna.onnx  style_lstm.onnx
                      articles.json  articles.safetensors     ids, fingerprints and Fashion DNA of the trained catalogue
                                                              (``model_store.article_table``)
                      golden.json    golden.safetensors       inputs and outputs that the service recomputes
                      report.html                             its evaluation's report, where there is one
                      …                                       the generating half, where there is one: its files, and
                                                              the folders of its language model, are in
                                                              ``model_store.generation``

Published by writing aside and renaming, so that a reader sees a whole bundle or none. Nothing in it is pickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.article_features import ArticleSpec
from model_store.errors import InvalidBundle
from model_store.generation_spec import LLM, LLM_EMBEDDED, GenerationSpec
from model_store.popularity import POPULARITY
from model_store.records import describe_validation_error
from model_store.time_features import TimeSpec
from model_store.tokens import TOKENIZER

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
CURRENT = "CURRENT"
IMAGE_ENCODER = "image_encoder.onnx"
FASHION_DNA = "fashion_dna.onnx"
STYLE_LSTM = "style_lstm.onnx"
ARTICLES = "articles.json"
ARTICLE_DNA = "articles.safetensors"
GOLDEN_CASES = "golden.json"
GOLDEN_ARRAYS = "golden.safetensors"
REPORT = "report.html"
"""The evaluation's report, for people: only where the run was evaluated before it was exported."""
REQUIRED_FILES = (IMAGE_ENCODER, FASHION_DNA, STYLE_LSTM, ARTICLES, ARTICLE_DNA, GOLDEN_CASES, GOLDEN_ARRAYS)

_LANGUAGE_MODEL = re.compile(f"({LLM}|{LLM_EMBEDDED})/.+")
_WEIGHTS = re.compile(rf"{LLM}/model[^/]*\.safetensors")
_READ_BY_ALL = (f"{LLM}/config.json", f"{LLM}/{TOKENIZER}")
_STAGE = ".stage-"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class FileEntry(BaseModel):
    """One file of the bundle: its size in bytes and SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Blend(BaseModel):
    """Weights of the blended ranking, fitted on validation data.

    score = f·d + popularity · f_p + trend · log(1 + recent sales) + best_sellers · g(place among the best sellers, 10)
    + generated · g(rank in the mixup list, ``MIXUP_LENGTH``) + bought_before · g(place among what the customer bought,
    ``MIXUP_LENGTH``), the latest first, as far as that may be shown again; with f_p the popularity component of f and
    g(rank, K) = log((K + 1) / rank) / log(K + 1) for the first K of a list, where there is one, else 0. Best sellers
    are the articles in stock with the highest f_p.
    ``cold_by_style``: customers without purchases are ranked by this, too, with d of the empty history; else what sold
    lately comes first for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    popularity: Annotated[float, Field(ge=0)] = 0.0
    trend: Annotated[float, Field(ge=0)] = 0.0
    best_sellers: Annotated[float, Field(ge=0)] = 0.0
    generated: Annotated[float, Field(ge=0)] = 0.0
    bought_before: Annotated[float, Field(ge=0)] = 0.0
    cold_by_style: bool = False


class DataSetCard(BaseModel):
    """Which data a bundle was trained on. ``cutoff`` is in Unix seconds: nothing at or after it was seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fingerprint: str
    cutoff: int
    articles: int
    customers: int
    purchases: int


class Manifest(BaseModel):
    """What a bundle is, and how to read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    created: str
    data_set: DataSetCard
    article_spec: ArticleSpec
    time_spec: TimeSpec
    blend: Blend = Blend()
    generation: GenerationSpec | None = None
    """The generating half; None where the bundle has none."""
    newcomer_popularity: float | None = None
    """Of Fashion DNA's last component, where that is what an article sold (``model_store.popularity``): a new one's."""
    article_offsets: bool = False
    """Whether training found an offset to the Fashion DNA of each article that it knew (``load_offset``)."""
    image_encoder: str
    """Where the residual network came from, in words: a directory's name, or what the pipeline trained itself on."""
    parameters: dict[str, int] = {}
    """Number of weights per model."""
    metrics: dict[str, Any] = {}
    """Evaluation figures, with their intervals."""
    config: dict[str, Any] = {}
    """The training configuration, seed included."""
    parity: dict[str, float] = {}
    """Largest absolute difference torch ↔ ONNX found at export, per graph."""
    files: dict[str, FileEntry] = {}

    @property
    def told_by_records(self) -> slice:
        """The components of Fashion DNA that follow from an article's record: all but what it sold."""
        return slice(None if self.newcomer_popularity is None else POPULARITY)


class _Format(BaseModel):
    format_version: int


class Bundle:
    """An opened bundle whose files have been verified against the manifest, as far as ``open_bundle`` was asked to."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest

    @property
    def version(self) -> str:
        return self.manifest.version

    def path(self, name: str) -> Path:
        """The file ``name`` of this bundle."""
        return self.folder / name


def open_bundle(folder: Path, *, language_model: bool = False) -> Bundle:
    """Read and verify a bundle. Raises InvalidBundle with the file and the reason; nothing is changed.

    ``language_model``: verify by SHA-256 what lies in ``llm/`` and ``llm_embedded/`` too. Whoever runs the language
    model asks for it. All others read no more of it than the tokenizer and ``config.json``, which are always verified;
    of the rest, gigabytes of weights perhaps, they check presence and size. SHA-256 goes at about 1 GB/s, so that the
    14 GB of a 7B model would keep a core of every worker busy for a quarter of a minute, at each start and switch.
    """
    manifest = read_manifest(folder)
    if manifest.version != folder.name:
        raise InvalidBundle(f"{folder}: {MANIFEST} says version '{manifest.version}', the folder is '{folder.name}'")
    _check_listed(folder, manifest)
    for name, entry in manifest.files.items():
        is_read = language_model or name in _READ_BY_ALL or not _LANGUAGE_MODEL.fullmatch(name)
        _check_file(folder, name, entry, hashed=is_read)
    return Bundle(folder, manifest)


def _check_listed(folder: Path, manifest: Manifest) -> None:
    """Whether the manifest lists all that a bundle of its kind holds."""
    generating = () if manifest.generation is None else manifest.generation.files()
    for name in (*REQUIRED_FILES, *generating):
        if name not in manifest.files:
            raise InvalidBundle(f"{folder}: {MANIFEST} does not list {name}")
    if generating and not any(_WEIGHTS.fullmatch(name) for name in manifest.files):
        raise InvalidBundle(f"{folder}: {MANIFEST} does not list {LLM}/model*.safetensors, the weights")


def _check_file(folder: Path, name: str, entry: FileEntry, *, hashed: bool) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidBundle(f"{folder}: {name} lies outside the bundle")
    if not path.is_file():
        raise InvalidBundle(f"{folder}: {name} is missing")
    if path.stat().st_size != entry.bytes:
        raise InvalidBundle(f"{folder}: {name} has {path.stat().st_size} bytes instead of {entry.bytes}")
    if hashed and hash_file(path) != entry.sha256:
        raise InvalidBundle(f"{folder}: {name} is damaged (its SHA-256 differs from the manifest's)")


def read_manifest(folder: Path) -> Manifest:
    """What a bundle says of itself; its files are not looked at. Raises InvalidBundle."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidBundle(f"{path}: cannot be read ({error.strerror})") from None
    try:
        # First of all, since the fields of another format are not ours to judge.
        found = _Format.model_validate_json(content).format_version
        if found != FORMAT_VERSION:
            raise InvalidBundle(f"{path}: format version {found} is unknown; this release reads {FORMAT_VERSION}")
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        field, message = describe_validation_error(error)
        raise InvalidBundle(f"{path}: {f'{field}: ' if field else ''}{message}") from None


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def publishing(store: Path, version: str) -> Iterator[Path]:
    """A folder to write a new bundle into: renamed to ``<store>/<version>`` where the block ends well, else removed.

    Write every file but the manifest, then call ``write_manifest``. What a killed writer left behind is cleared away.
    Raises InvalidBundle where the version exists or the store cannot be written.
    """
    if not _VERSION.fullmatch(version):
        raise InvalidBundle(f"version '{version}' must be 1 to 100 letters, digits, dots, dashes or underscores")
    taken = InvalidBundle(f"{store / version} exists already; bundles are immutable, so choose another version")
    if (store / version).exists():
        raise taken
    stage, lock = _open_stage(store)
    try:
        yield stage
        _let_everybody_read(stage)
        try:
            stage.rename(store / version)
        except OSError:
            if (store / version).exists():  # another writer was faster
                raise taken from None
            raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        os.close(lock)


def _let_everybody_read(folder: Path) -> None:
    """Who serves a bundle may be another user than who wrote it, and some libraries write files for that user alone."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _open_stage(store: Path) -> tuple[Path, int]:
    """A new folder aside, and the descriptor whose lock says that its writer lives."""
    with _store_lock(store):
        for left in store.glob(f"{_STAGE}*"):
            descriptor = os.open(left, os.O_RDONLY)
            if _lock(descriptor):
                shutil.rmtree(left, ignore_errors=True)
            os.close(descriptor)
        stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=store))
        descriptor = os.open(stage, os.O_RDONLY)
        _lock(descriptor)
        return stage, descriptor


@contextmanager
def _store_lock(store: Path) -> Iterator[None]:
    """Held while stages are made and cleared, so that none is cleared before it is locked."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(store / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InvalidBundle(f"{store} cannot be written ({error.strerror})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_manifest(stage: Path, manifest: Manifest) -> None:
    """Write the manifest of the files that now lie in ``stage``; their sizes and hashes are filled in here."""
    files = {
        path.relative_to(stage).as_posix(): FileEntry(bytes=path.stat().st_size, sha256=hash_file(path))
        for path in sorted(stage.rglob("*"))
        if path.is_file() and path != stage / MANIFEST
    }
    complete = manifest.model_copy(update={"files": files})
    (stage / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")


def versions(store: Path) -> list[str]:
    """All versions in the store, whether sound or not, in order of name."""
    if not store.is_dir():
        return []
    return sorted(path.name for path in store.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir())


def current_version(store: Path) -> str | None:
    """The version that CURRENT names, or None where none was ever activated.

    Raises InvalidBundle where CURRENT cannot be read or names what can be no version.
    """
    found = read_current(store)
    return None if found is None else found[0]


def read_current(store: Path) -> tuple[str, float] | None:
    """The version that CURRENT names and when it was written (Unix seconds), of one and the same file.

    None where none was ever activated. Raises InvalidBundle as ``current_version``.
    """
    try:
        with (store / CURRENT).open(encoding="utf-8") as file:
            version, written = file.read().strip(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidBundle(f"{store / CURRENT} cannot be read ({error})") from None
    if not _VERSION.fullmatch(version):
        raise InvalidBundle(f"{store / CURRENT} names '{version}', which is no version; activate a bundle again")
    return version, written


def set_current(store: Path, version: str) -> None:
    """Let CURRENT name ``version``, in one atomic rename. Raises InvalidBundle where the store has no such bundle."""
    if version not in versions(store):
        raise InvalidBundle(f"{store} has no bundle '{version}'; it has {', '.join(versions(store)) or 'none'}")
    aside = store / f".{CURRENT}-{os.getpid()}"
    try:
        aside.write_text(version + "\n", encoding="utf-8")
        aside.replace(store / CURRENT)
    except OSError as error:
        raise InvalidBundle(f"{store / CURRENT} cannot be written ({error.strerror})") from None
