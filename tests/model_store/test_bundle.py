from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from bundles import make_bundle

from model_store.bundle import (
    CURRENT,
    MANIFEST,
    REQUIRED_FILES,
    Bundle,
    Manifest,
    current_version,
    open_bundle,
    publishing,
    set_current,
    versions,
    write_manifest,
)
from model_store.errors import InvalidBundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "store", version="v1")


def edit_manifest(bundle: Bundle, change: Callable[[dict], object]) -> None:
    path = bundle.path(MANIFEST)
    values = orjson.loads(path.read_bytes())
    change(values)
    path.write_bytes(orjson.dumps(values))


def test_whoever_serves_can_read_what_was_published(bundle: Bundle) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in bundle.folder.rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o644}, modes


def test_what_was_published_opens(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder)
    assert opened.manifest == bundle.manifest
    assert set(opened.manifest.files) == set(REQUIRED_FILES)


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_every_file_is_watched(bundle: Bundle, name: str) -> None:
    path = bundle.path(name)
    sound = path.read_bytes()
    path.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
    with pytest.raises(InvalidBundle, match=f"v1: {name} is damaged"):
        open_bundle(bundle.folder)
    path.write_bytes(sound[:-1])
    with pytest.raises(InvalidBundle, match=f"v1: {name} has {len(sound) - 1} bytes instead of {len(sound)}"):
        open_bundle(bundle.folder)
    path.unlink()
    with pytest.raises(InvalidBundle, match=f"v1: {name} is missing"):
        open_bundle(bundle.folder)
    path.write_bytes(sound)
    assert open_bundle(bundle.folder).version == "v1"


MANIFEST_FAULTS: list[tuple[Callable[[dict], object], str]] = [
    (lambda m: m.update(format_version=2, unheard_of=1), "format version 2 is unknown; this release reads 1"),
    (lambda m: m.pop("format_version"), "format_version: Field required"),
    (lambda m: m.update(version="v2"), "says version 'v2', the folder is 'v1'"),
    (lambda m: m.update(version="../v1"), "version: String should match pattern"),
    (lambda m: m.update(surprise=1), "surprise: Extra inputs are not permitted"),
    (lambda m: m["files"].pop("fashion_dna.onnx"), "does not list fashion_dna.onnx"),
    (lambda m: m["files"]["golden.json"].update(sha256="0" * 64), "golden.json is damaged"),
    (lambda m: m["files"].update({"../../secret": {"bytes": 0, "sha256": "0" * 64}}), "lies outside the bundle"),
    (lambda m: m["files"].update({"/etc/passwd": {"bytes": 0, "sha256": "0" * 64}}), "lies outside the bundle"),
    (lambda m: m["files"].update({".": {"bytes": 0, "sha256": "0" * 64}}), r"\. is missing"),
    (lambda m: m["article_spec"].update(log_price_scale=0), "article_spec.log_price_scale: Input should be greater"),
]


@pytest.mark.parametrize(("change", "message"), MANIFEST_FAULTS, ids=[message for _, message in MANIFEST_FAULTS])
def test_a_wrong_manifest_is_refused_and_says_why(bundle: Bundle, change, message: str) -> None:
    edit_manifest(bundle, change)
    with pytest.raises(InvalidBundle, match=message):
        open_bundle(bundle.folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_none_is_refused(bundle: Bundle, content: bytes) -> None:
    bundle.path(MANIFEST).write_bytes(content)
    with pytest.raises(InvalidBundle, match=MANIFEST):
        open_bundle(bundle.folder)


def test_a_link_out_of_the_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(bundle.path("golden.json"), outside)
    bundle.path("golden.json").symlink_to(outside)
    with pytest.raises(InvalidBundle, match=r"golden\.json lies outside the bundle"):
        open_bundle(bundle.folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match="cannot be read \\(No such file or directory\\)"):
        open_bundle(tmp_path / "v9")


# --- the generating half -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("store"), version="v1", generating=True)


@pytest.fixture
def generating(sound: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(sound.folder, tmp_path / "v1")
    return Bundle(tmp_path / "v1", sound.manifest)


GENERATING_FILES = [
    "title_encoder.onnx", "title_tokenizer.json", "titles.safetensors", "ids.safetensors", "query_memory.json",
    "query_memory.safetensors", "llm/config.json", "llm/tokenizer.json", "llm_embedded/genai_config.json",
    "llm_embedded/model.onnx",
]  # fmt: skip


def test_files_in_folders_are_listed_by_their_path(generating: Bundle) -> None:
    assert {*REQUIRED_FILES, *GENERATING_FILES, "llm/model.safetensors"} <= set(generating.manifest.files)
    assert open_bundle(generating.folder, language_model=True).manifest == generating.manifest


@pytest.mark.parametrize("name", [*GENERATING_FILES, "llm/model.safetensors"])
def test_a_generating_bundle_must_list_all_its_files(generating: Bundle, name: str) -> None:
    edit_manifest(generating, lambda m: m["files"].pop(name))
    with pytest.raises(InvalidBundle, match=f"does not list {name.replace('model.safe', 'model[*].safe')}"):
        open_bundle(generating.folder)


def test_weights_may_lie_in_several_files(generating: Bundle) -> None:
    parts = [generating.path(f"llm/model-0000{part}-of-00002.safetensors") for part in (1, 2)]
    generating.path("llm/model.safetensors").rename(parts[0])
    shutil.copy(parts[0], parts[1])
    write_manifest(generating.folder, generating.manifest)
    assert open_bundle(generating.folder, language_model=True).version == "v1"


@pytest.mark.parametrize("name", ["query_encoder.onnx", "query_tokenizer.json"])
def test_a_query_encoder_is_needed_where_the_spec_names_one(generating: Bundle, name: str) -> None:
    for each in {"query_encoder.onnx", "query_tokenizer.json"} - {name}:
        generating.path(each).write_bytes(b"there")
    spec = generating.manifest.generation.model_copy(update={"query_encoder": "clip"})
    write_manifest(generating.folder, generating.manifest.model_copy(update={"generation": spec}))
    with pytest.raises(InvalidBundle, match=f"does not list {name}"):
        open_bundle(generating.folder)


@pytest.mark.parametrize("name", ["llm/model.safetensors", "llm/generation_config.json", "llm_embedded/model.onnx"])
def test_the_language_model_is_hashed_only_for_whoever_runs_it(generating: Bundle, name: str) -> None:
    path = generating.path(name)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert open_bundle(generating.folder).version == "v1"
    with pytest.raises(InvalidBundle, match=f"v1: {name} is damaged"):
        open_bundle(generating.folder, language_model=True)
    path.write_bytes(content[:-1])
    with pytest.raises(InvalidBundle, match=f"v1: {name} has {len(content) - 1} bytes"):
        open_bundle(generating.folder)
    path.unlink()
    with pytest.raises(InvalidBundle, match=f"v1: {name} is missing"):
        open_bundle(generating.folder)


@pytest.mark.parametrize("name", [name for name in GENERATING_FILES if not name.startswith("llm_embedded")])
def test_all_that_every_worker_reads_is_hashed_for_every_worker(generating: Bundle, name: str) -> None:
    content = generating.path(name).read_bytes()
    generating.path(name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(InvalidBundle, match=f"v1: {name} is damaged"):
        open_bundle(generating.folder)


def test_a_manifest_within_a_folder_is_a_file_like_any_other(generating: Bundle) -> None:
    generating.path("llm/manifest.json").write_text("{}")
    write_manifest(generating.folder, generating.manifest)
    assert "llm/manifest.json" in open_bundle(generating.folder).manifest.files


def test_a_bundle_without_a_generating_half_needs_none_of_it(bundle: Bundle) -> None:
    assert open_bundle(bundle.folder, language_model=True).manifest.generation is None


# --- publishing --------------------------------------------------------------------------------------------------


def contents(store: Path) -> set[str]:
    return {path.name for path in store.iterdir()} - {".lock"}


def test_a_failure_while_writing_leaves_the_store_as_it_was(bundle: Bundle) -> None:
    store = bundle.folder.parent
    with pytest.raises(FileNotFoundError), publishing(store, "v2") as stage:
        shutil.copy(bundle.path("nothing"), stage)
    assert contents(store) == {"v1", CURRENT}
    assert current_version(store) == "v1"


def test_a_killed_writer_leaves_the_store_as_it_was_and_the_next_clears_up(bundle: Bundle) -> None:
    store = bundle.folder.parent
    script = (
        "import sys, time; from pathlib import Path; from model_store.bundle import publishing\n"
        "with publishing(Path(sys.argv[1]), 'v2') as stage:\n"
        "    (stage / 'half').write_text('…'); print('writing', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(store)], stdout=subprocess.PIPE, env=environment
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        with publishing(store, "meanwhile") as stage:
            assert len(contents(store)) == 4  # the living writer's stage is left alone
            shutil.copytree(bundle.folder, stage, dirs_exist_ok=True)
        writer.send_signal(signal.SIGKILL)
    assert versions(store) == ["meanwhile", "v1"]
    assert current_version(store) == "v1"
    assert open_bundle(store / "v1").version == "v1"
    make_bundle(store, version="v2")
    assert contents(store) == {"v1", "v2", "meanwhile", CURRENT}


def test_bundles_are_immutable(bundle: Bundle) -> None:
    with pytest.raises(InvalidBundle, match="exists already"):
        make_bundle(bundle.folder.parent, version="v1")
    with pytest.raises(InvalidBundle, match="exists already"), publishing(bundle.folder.parent, "v2"):
        shutil.copytree(bundle.folder, bundle.folder.parent / "v2")  # another writer was faster


@pytest.mark.parametrize("version", ["", ".hidden", "a/b", "../x", "x" * 101, "ü"])
def test_versions_are_plain_names(tmp_path: Path, version: str) -> None:
    with pytest.raises(InvalidBundle, match="must be 1 to 100"), publishing(tmp_path, version):
        pass


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidBundle, match="cannot be written"), publishing(tmp_path / "file" / "store", "v1"):
        pass


def test_the_manifest_lists_what_lies_in_the_folder(bundle: Bundle, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    (stage / "deep").mkdir(parents=True)
    (stage / "deep" / "file").write_bytes(b"abc")
    write_manifest(stage, bundle.manifest)
    files = Manifest.model_validate_json((stage / MANIFEST).read_bytes()).files
    assert {name: entry.bytes for name, entry in files.items()} == {"deep/file": 3}
    assert files["deep/file"].sha256.startswith("ba7816bf")


# --- CURRENT -----------------------------------------------------------------------------------------------------


def test_current_names_the_live_version(bundle: Bundle) -> None:
    store = bundle.folder.parent
    make_bundle(store, version="v2")
    assert (versions(store), current_version(store)) == (["v1", "v2"], "v1")
    set_current(store, "v2")
    assert current_version(store) == "v2"
    with pytest.raises(InvalidBundle, match="has no bundle 'v3'; it has v1, v2"):
        set_current(store, "v3")
    assert current_version(store) == "v2"


def test_an_empty_store_has_neither(tmp_path: Path) -> None:
    assert (versions(tmp_path / "none"), current_version(tmp_path / "none")) == ([], None)


@pytest.mark.parametrize("content", ["", "../../etc", "a\nb"])
def test_a_current_that_names_no_version_is_refused(bundle: Bundle, content: str) -> None:
    (bundle.folder.parent / CURRENT).write_text(content)
    with pytest.raises(InvalidBundle, match="which is no version"):
        current_version(bundle.folder.parent)
