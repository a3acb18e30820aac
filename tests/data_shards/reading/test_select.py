"""The select structure against numpy.flatnonzero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.reading.select import Select


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_every_mark_is_where_flatnonzero_says(data: st.DataObject) -> None:
    seed, share = data.draw(st.integers(0, 2**20)), data.draw(st.sampled_from([0.0, 0.003, 0.5, 0.99, 1.0]))
    lengths = data.draw(st.lists(st.integers(0, 1200), max_size=5))
    random = np.random.default_rng(seed)
    parts = [random.random(length) < share for length in lengths]
    marks = np.concatenate([np.zeros(0, bool), *parts])
    select = Select(iter(parts))
    expected = np.flatnonzero(marks)
    assert len(select) == len(expected)
    order = random.permutation(len(expected))
    assert (select(order) == expected[order]).all()
    for position in random.integers(0, len(marks) + 1, 5):
        assert select.before(int(position)) == marks[:position].sum()


def test_marks_that_are_not_there_are_refused() -> None:
    select = Select([np.array([True, False, True])])
    assert select(np.array([1, 0, 1])).tolist() == [2, 0, 2] and select(np.array([], np.int64)).shape == (0,)
    for rank in (-1, 2):
        with pytest.raises(IndexError, match=r"range\(2\)"):
            select(np.array([rank]))


def test_it_takes_little_more_than_a_bit_for_each_position() -> None:
    select = Select(np.zeros(10_000, bool) for _ in range(100))
    assert select.nbytes * 8 < 1.13 * 1_000_000 + 1000
