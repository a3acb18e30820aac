"""What an asynchronous generator yields, for code that is not asynchronous, and its end when that code is ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator


def waited_for(chunks: AsyncGenerator[str]) -> Generator[str]:
    """Yield each chunk when it comes.

    A signal handler that raises does so in the middle of the wait, and leaves the generator suspended at its ``await``:
    it is told to give up there first, because one that still runs cannot be closed, and the interpreter would tell of
    it when it collects it.
    """
    loop = asyncio.new_event_loop()
    coming: asyncio.Task[str | None] | None = None

    async def following() -> str | None:
        return await anext(chunks, None)

    try:
        while True:
            coming = loop.create_task(following())
            chunk = loop.run_until_complete(coming)
            if chunk is None:
                return
            yield chunk
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                loop.run_until_complete(coming)
        with contextlib.suppress(Exception):
            loop.run_until_complete(chunks.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
