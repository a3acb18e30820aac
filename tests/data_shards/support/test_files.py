"""Folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.support.errors import MedformerError
from data_shards.support.files import new_folder


def fail(out: Path, beside: Path, error: BaseException) -> None:
    """Half fill a new folder, write a file beside it, and fail."""
    with new_folder(out) as partial:
        (partial / "half").write_text("x")
        beside.write_text("x")
        raise error


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError("full"), MedformerError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_failure_leaves_neither_the_folder_nor_those_that_were_made_for_it(
    tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(raised):
        fail(tmp_path / "mine" / "a" / "b" / "out", tmp_path / "beside", error)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "beside", tmp_path / "mine"]


def test_what_others_have_put_into_the_folders_above_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "a" / "b" / "out", tmp_path / "a" / "theirs", KeyboardInterrupt())
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "theirs"]


def test_without_a_failure_the_folder_is_there(tmp_path: Path) -> None:
    with new_folder(tmp_path / "c" / "out") as partial:
        (partial / "all").write_text("x")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "c", tmp_path / "c" / "out", tmp_path / "c" / "out" / "all"]
