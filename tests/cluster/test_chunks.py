"""Following an asynchronous generator, as that of Ray's client is, and being ended while nothing comes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from cluster.jobs.chunks import waited_for

PROGRAM = """
import asyncio, contextlib
from cluster.jobs.chunks import waited_for
from medformer.signals import terminated_in_order

class Connection:
    async def __aenter__(self): return self
    async def __aexit__(self, *_): await asyncio.sleep(0); print("closed", flush=True)

async def lines():
    async with Connection():
        yield "first"
        await asyncio.sleep(600)

with terminated_in_order(), contextlib.closing(waited_for(lines())) as chunks:
    for chunk in chunks:
        print(chunk, flush=True)
"""


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_in_the_middle_of_a_wait_closes_the_connection_and_nothing_is_told_of_it(
    number: signal.Signals, status: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "first\n"
    process.send_signal(number)
    said, told = process.communicate(timeout=60)
    assert said == "closed\n" and process.returncode == status
    assert "ignored" not in told and "GeneratorExit" not in told
    assert number != signal.SIGTERM or told == ""


def test_chunks_come_in_order_and_an_error_of_the_generator_is_raised() -> None:
    async def lines():
        yield "a"
        yield "b"
        raise RuntimeError("lost")

    chunks = waited_for(lines())
    assert [next(chunks), next(chunks)] == ["a", "b"]
    with pytest.raises(RuntimeError, match="lost"):
        next(chunks)
