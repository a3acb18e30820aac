from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.sample import SPLITS
from data_shards.writing import ledger
from data_shards.writing.ledger import ENTRY, Ledger, digest128

ENTRIES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=60)


def entries(rows: list[tuple[int, int]]) -> np.ndarray:
    """``(name, split)`` pairs at positions 0, 1, 2, ..."""
    return np.array([(*digest128(bytes([name])), split, n) for n, (name, split) in enumerate(rows)], ENTRY)


@pytest.mark.parametrize("in_memory", [1 << 22, 4])
@given(rows=ENTRIES, cut=st.integers(0, 60))
@settings(max_examples=60)
def test_repeats_are_those_that_a_dictionary_finds(
    tmp_path_factory: pytest.TempPathFactory, in_memory: int, rows: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "file"
    first: dict[int, int] = {}
    again = []
    for position, (name, _) in enumerate(rows):
        if name in first:
            again.append((position, first[name], rows[first[name]][1] != rows[position][1]))
        first.setdefault(name, position)
    homes = {name: {SPLITS[split] for other, split in rows if other == name} for name in first}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "_IN_MEMORY", in_memory)
        book = Ledger(path)
        book.append(entries(rows)[:cut])
        book.append(entries(rows)[cut:])
        found = book.repeats(keep=100)
        crossing = book.repeats(keep=100, crossing_only=True)
        assert book.repeats(keep=1).again.tolist() == [row[0] for row in again][:1]
    assert list(zip(found.again, found.first, found.crosses, strict=True)) == again
    assert list(zip(crossing.again, crossing.first, strict=True)) == [row[:2] for row in again if row[2]]
    assert found.repeated == len(again)
    assert found.distinct == {s: n for s in SPLITS if (n := sum(s in home for home in homes.values()))}
    for pair, count in found.shared.items():
        assert count == sum(set(pair.split("/")) <= home for home in homes.values())
    assert len(found.shared) == len(found.distinct) * (len(found.distinct) - 1) // 2


def test_a_ledger_that_is_opened_again_forgets_what_was_not_counted(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "file")
    book.append(entries([(0, 0), (1, 0), (0, 1)]))
    with (tmp_path / "file").open("ab") as file:
        file.write(b"half an entry")
    assert Ledger(tmp_path / "file", 3).repeats(keep=9).again.tolist() == [2]
    assert Ledger(tmp_path / "file", 2).repeats(keep=9).again.tolist() == []


def test_a_study_that_holds_one_image_twice_repeats_no_other_study(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "file")
    rows = entries([(0, 0), (0, 0)])
    rows["position"] = 5
    book.append(rows)
    assert book.repeats(keep=9).repeated == 0
