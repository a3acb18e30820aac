from __future__ import annotations

import io
import time

import pytest

from data_shards.support.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_plain_lines_at_a_bounded_rate_and_a_summary() -> None:
    log = io.StringIO()
    with Progress(1000, "samples", "toy", stream=log) as progress:
        for _ in range(1000):
            progress.advance()
    assert log.getvalue().count("\n") == 1 and log.getvalue().startswith("toy: 1000 samples in 0:00:00, ")


def test_every_line_has_rate_time_left_and_figures() -> None:
    log = io.StringIO()
    with Progress(4, "batches", "train", stream=log, seconds=0) as progress:
        time.sleep(0.01)
        progress.advance(2, loss=1.23456)
    line = log.getvalue().splitlines()[0]
    assert line.startswith("train: 2/4 batches, ") and "batches/s, 0:00:00 left, loss 1.235" in line


def test_a_terminal_gets_one_line_that_is_rewritten() -> None:
    screen = Terminal()
    with Progress(None, "samples", "toy", stream=screen, seconds=0) as progress:
        progress.advance()
        progress.advance()
    assert screen.getvalue().count("\r") == 3 and screen.getvalue().count("\n") == 1 and "left" not in screen.getvalue()


def test_a_job_that_is_over_at_once_says_nothing_where_it_is_one_of_many() -> None:
    log, screen = io.StringIO(), Terminal()
    for stream in (log, screen):
        with Progress(2, "images", "toy", stream=stream, brief=True) as progress:
            progress.advance(2)
        assert stream.getvalue() == ""
    with Progress(3, "images", "toy", stream=log, brief=True, seconds=0) as progress:
        progress.advance()
        time.sleep(1.05)
        progress.advance()
        progress.advance()
    first, _, last = log.getvalue().splitlines()
    assert first.startswith("toy: 2/3 images, ") and last.startswith("toy: 3 images in 0:00:01, ")


def test_rates_have_no_exponent() -> None:
    log = io.StringIO()
    with Progress(10**7, "images", "toy", stream=log) as progress:
        time.sleep(0.01)
        progress.advance(10**7)
    assert "e+" not in log.getvalue() and log.getvalue().endswith(" images/s\n")


def test_a_failed_job_has_no_summary() -> None:
    log = io.StringIO()
    with pytest.raises(ValueError, match="stop"), Progress(2, "samples", "toy", stream=log):
        raise ValueError("stop")
    assert log.getvalue() == ""


def test_durations_read_as_hours_minutes_seconds() -> None:
    assert (clock(0.4), clock(75), clock(3600 * 26 + 61)) == ("0:00:00", "0:01:15", "26:01:01")
