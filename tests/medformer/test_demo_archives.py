"""The archives of a demonstration stay where the commands of the tour look for them, also offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.sources.medmnist import MedMNIST
from data_shards.support.errors import MedformerError
from medformer.demo.images import choose, keep_archives
from medformer.demo.run import Options, run


def test_the_archives_that_were_read_are_found_by_root(shared_data: Path, tmp_path: Path) -> None:
    chosen = choose(shared_data, 0)
    folder = keep_archives(chosen, tmp_path / "archives")
    assert folder is not None
    read = {source.archive.name: source.archive for source in chosen.sources if isinstance(source, MedMNIST)}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: archive.read_bytes() for name, archive in read.items()
    }
    assert MedMNIST("breastmnist", root=folder, download=False).archive == folder / "breastmnist.npz"
    reassembled = folder / "pneumoniamnist_reassembled.npz"
    assert MedMNIST("pneumoniamnist", file=reassembled, unofficial="reassembled").archive == reassembled


def test_phantoms_leave_no_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MEDMNIST_ROOT", raising=False)
    monkeypatch.setattr("data_shards.sources.medmnist.archive._download", _offline)
    assert keep_archives(choose(None, 0), tmp_path / "archives") is None
    assert not (tmp_path / "archives").exists()


def _offline(*_: object) -> None:
    raise OSError("no network")


def test_a_demonstration_does_not_delete_the_archives_it_is_to_read(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    out.mkdir()
    kept = keep_archives(choose(shared_data, 0), out / "archives")
    with pytest.raises(MedformerError, match="is inside .*, which the demonstration replaces"):
        run(Options(out=out, data=kept, overwrite=True))
    assert (out / "archives" / "breastmnist.npz").is_file()
