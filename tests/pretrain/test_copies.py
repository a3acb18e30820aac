"""Copies of checkpoints behind a URL: complete or not there, whatever is torn or changed on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data_shards.support.errors import CheckpointError, ConfigError
from data_shards.support.files import sha256_of, write_json
from pretrain.checkpoint import DIGESTS, STATE, Checkpoint, CheckpointStore
from pretrain.config import CheckpointConfig, PretrainConfig
from pretrain.engine import run
from pretrain.saving import courier
from pretrain.saving.courier import check_copies, newest_copy, open_courier
from pretrain.saving.mirror import Mirror
from tests.pretrain.runs import GroupRuntime, document


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"file://{tmp_path}/copies" if request.param == "file" else "memory://bucket/run"
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def made(store: CheckpointStore, step: int, **metrics: float) -> Checkpoint:
    """A complete checkpoint with files in it and in a folder below it."""
    folder = store.begin(step, 0)
    write_json(folder / STATE, {"step": step, "metrics": metrics})
    (folder / "engine").mkdir()
    (folder / "engine" / "weights.pt").write_bytes(bytes([step]) * 1000)
    files = [STATE, "engine/weights.pt"]
    return store.commit(step, 0, {name: sha256_of(folder / name) for name in files})


def sent(store: CheckpointStore, **config: Any) -> Mirror:
    document = CheckpointConfig.model_validate(config)
    post = open_courier(document, store)
    post.finish()
    assert document.to is not None
    return Mirror(document.to)


def damage(url: str, name: str, content: bytes | None) -> None:
    files, root = fsspec.core.url_to_fs(url)
    if content is None:
        files.rm_file(f"{root}/{name}")
    else:
        files.pipe_file(f"{root}/{name}", content)


def test_a_checkpoint_comes_back_from_its_copy_when_the_folder_is_gone(url: str, tmp_path: Path) -> None:
    here = CheckpointStore(tmp_path / "here")
    made(here, 1)
    whole = {path.name: path.read_bytes() for path in made(here, 2).folder.rglob("*") if path.is_file()}
    sent(here, to=url)
    elsewhere = CheckpointStore(tmp_path / "elsewhere")
    copy = newest_copy(CheckpointConfig(to=url), elsewhere)
    assert copy is not None and copy.step == 2 and copy.state()["step"] == 2
    fetched = copy.fetch(elsewhere)
    fetched.verify()
    assert fetched == elsewhere.latest()
    assert {path.name: path.read_bytes() for path in fetched.folder.rglob("*") if path.is_file()} == whole
    assert newest_copy(CheckpointConfig(to=url), elsewhere) is None, "what is here already is not fetched again"


def test_copies_that_are_no_longer_kept_go_with_the_checkpoints(url: str, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "here")
    config = {"to": url, "keep": 1, "keep_best": {"metric": "loss", "mode": "min"}, "every_steps": 1}
    for step, loss in enumerate([3.0, 1.0, 2.0, 4.0], start=1):
        made(store, step, loss=loss)
        mirror = sent(store, **config)
    assert [copy.step for copy in mirror.complete()] == [2, 4]


def test_a_copy_without_its_last_file_is_told_and_left_out(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = CheckpointStore(tmp_path / "here")
    for step in (1, 2):
        made(store, step)
    mirror = sent(store, to=url)
    for content in (None, b'{"state.json": "9'):
        damage(url, f"step-00000002-attempt-0/{DIGESTS}", content)
        copy = newest_copy(CheckpointConfig(to=url), CheckpointStore(tmp_path / "elsewhere"))
        assert copy is not None and copy.step == 1
        assert capsys.readouterr().err.endswith("/step-00000002-attempt-0 is not complete and is left out\n")
    check_copies(CheckpointConfig(to=url), resume=True)
    assert mirror.torn() == [] and [copy.step for copy in mirror.complete()] == [1]


@pytest.mark.parametrize("content", [None, b"other"])
def test_a_copy_with_a_changed_or_missing_file_is_refused_and_leaves_nothing(
    content: bytes | None, url: str, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path / "here")
    made(store, 1)
    sent(store, to=url)
    damage(url, "step-00000001-attempt-0/engine/weights.pt", content)
    elsewhere = CheckpointStore(tmp_path / "elsewhere")
    copy = newest_copy(CheckpointConfig(to=url), elsewhere)
    assert copy is not None
    with pytest.raises(CheckpointError, match=r"step-00000001-attempt-0 cannot be fetched .*remove it to go on from"):
        copy.fetch(elsewhere)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_name_that_leads_out_of_the_folder_is_refused(url: str, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "here")
    made(store, 1)
    sent(store, to=url)
    damage(url, f"step-00000001-attempt-0/{DIGESTS}", json.dumps({"../../outside": "0" * 64}).encode())
    copy = newest_copy(CheckpointConfig(to=url), CheckpointStore(tmp_path / "elsewhere"))
    assert copy is not None
    with pytest.raises(CheckpointError, match=r"'\.\./\.\./outside' is no name of a file of a checkpoint"):
        copy.fetch(CheckpointStore(tmp_path / "elsewhere"))
    assert not (tmp_path / "outside").exists()


def test_a_new_run_does_not_stand_among_the_copies_of_another(url: str, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "here")
    made(store, 1)
    sent(store, to=url)
    with pytest.raises(ConfigError, match="holds checkpoints; choose another place, or pass --resume to go on"):
        check_copies(CheckpointConfig(to=url), resume=False)
    check_copies(CheckpointConfig(to=url), resume=True)


@pytest.mark.parametrize(
    "place, message",
    [
        ("nothing-like-it://bucket/run", "checkpoint.to: .*nothing-like-it"),
        (
            "file:///proc/copies",
            "checkpoint.to: /proc/copies cannot be written|checkpoint.to: file:///proc/copies cannot",
        ),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_run(place: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_copies(CheckpointConfig(to=place), resume=False)


def test_a_copy_that_cannot_be_sent_is_told_and_sent_with_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "_PAUSE_S", 0.01)
    store = CheckpointStore(tmp_path / "here")
    made(store, 1)
    (tmp_path / "copies").write_text("a file where a folder is needed")
    sent_to = f"file://{tmp_path}/copies"
    sent(store, to=sent_to)
    told = capsys.readouterr().err
    assert "step-00000001-attempt-0 cannot be copied to" in told and told.count("\n") == 1
    (tmp_path / "copies").unlink()
    made(store, 2)
    assert [copy.step for copy in sent(store, to=sent_to).complete()] == [1, 2]


@pytest.mark.usefixtures("process_group")
def test_a_run_goes_on_from_its_copies_on_a_machine_that_has_nothing_of_it(shards: Path, tmp_path: Path) -> None:
    def config(out: str, to: str) -> PretrainConfig:
        place = {"every_steps": 2, "keep": 1, "to": f"file://{tmp_path}/{to}"}
        return PretrainConfig.model_validate(
            document(shards, tmp_path / out, schedule={"max_steps": 5}, checkpoint=place)
        )

    assert run(config("whole", "copies-of-whole"), GroupRuntime())
    assert run(config("first", "copies"), GroupRuntime(stop_after=3)) is None
    shutil.rmtree(tmp_path / "first")
    runtime = GroupRuntime()
    assert run(config("second", "copies"), runtime, resume=True)
    assert runtime.reported == [4, 5]
    assert [copy.step for copy in Mirror(f"file://{tmp_path}/copies").complete()] == [5]
    whole, second = ((tmp_path / name / "bundle/model.safetensors").read_bytes() for name in ("whole", "second"))
    assert whole == second
