"""The bytes of a file over HTTP, from any offset, as they arrive.

fsspec's own ``cat_file`` returns nothing of a request that breaks off, does not say whether the server honoured the
range (RFC 9110, section 14), and holds the whole answer in memory; so the answer is streamed here, in fsspec's event
loop and session, with whatever options fsspec is configured with.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from typing import Any

from data_shards.storage.faults import Interrupted, Mismatch, Refused
from data_shards.support.descriptors import raise_out_of_files

# A piece is handed on when it is this large or this old; what is not handed on is lost when the process is killed.
_PIECE_BYTES = 1 << 20
_PIECE_S = 0.2
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
# Request timeout, too early, too many requests: the other client errors stay what they are.
_PASSING = (408, 425, 429)


def http_chunks(
    filesystem: Any, url: str, *, start: int, size: int | None, stall_s: float, stop: int | None = None
) -> Generator[bytes, None, None]:
    """Yield the bytes of ``url`` from ``start`` on, in pieces of any length.

    Args:
        filesystem: fsspec's ``HTTPFileSystem``.
        url: address of the file.
        start: first byte wanted.
        size: bytes of the whole file, None when not known.
        stall_s: the longest wait for a connection or for the next byte.
        stop: ask for the bytes before it alone, of a server that knows ranges; None asks for all of them.

    Raises:
        Interrupted: the connection failed or stalled, or the server is in trouble.
        Mismatch: the file of the server has another size.
        Refused: the server does not give the file.
    """
    import aiohttp
    from fsspec.asyn import sync

    session = sync(filesystem.loop, filesystem.set_session)
    options = dict(filesystem.kwargs)
    # A server that compresses on the way would shift every offset.
    options["headers"] = {**options.get("headers", {}), "Accept-Encoding": "identity"}
    if start or stop is not None:
        options["headers"]["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    options["timeout"] = aiohttp.ClientTimeout(total=None, connect=stall_s, sock_read=stall_s)
    response: Any = None
    try:
        response, piece, broken = sync(filesystem.loop, _start, session, filesystem.encode_url(url), options)
        surplus = _surplus(response, start, size, part=stop is not None)
        while piece:
            yield piece[surplus:]
            surplus = max(0, surplus - len(piece))
            piece, broken = (b"", broken) if broken else sync(filesystem.loop, _piece, response.content)
        if broken is not None:
            raise broken
    except TimeoutError:
        raise Interrupted(f"no byte for {stall_s:g} s") from None
    except aiohttp.ClientPayloadError:
        raise Interrupted("the connection ended in the middle of the file") from None
    except (aiohttp.InvalidURL, aiohttp.TooManyRedirects) as error:
        raise Refused(f"the address leads nowhere ({type(error).__name__})") from None
    except (aiohttp.ClientError, OSError) as error:
        raise_out_of_files(error)
        raise Interrupted(f"the connection failed ({type(error).__name__})") from None
    finally:
        if response is not None:
            # In the thread of the loop, where the transport lives.
            filesystem.loop.call_soon_threadsafe(response.close)


async def _start(session: Any, url: Any, options: dict[str, Any]) -> tuple[Any, bytes, Exception | None]:
    """The answer and its first bytes, taken together: aiohttp drops what it has buffered when a connection breaks."""
    response = await session.get(url, **options)
    return response, *await _piece(response.content)


async def _piece(content: Any) -> tuple[bytes, Exception | None]:
    """The next bytes, none at the end, and the error that came after them."""
    piece = bytearray()
    try:
        piece += await content.readany()
        async with asyncio.timeout(_PIECE_S) as age:
            while piece and len(piece) < _PIECE_BYTES and (more := await content.readany()):
                piece += more
    except Exception as error:  # the bytes before it count; the caller raises it
        return bytes(piece), None if piece and age.expired() else error
    return bytes(piece), None


def _surplus(response: Any, start: int, size: int | None, *, part: bool) -> int:
    """How many bytes of the answer come before ``start``: all of them when the server ignores ranges."""
    status, headers = response.status, response.headers
    if status == 206:
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if match is None or int(match[1]) != start:
            raise Interrupted("the server answered with another range than asked for")
        _check_size(None if match[3] == "*" else int(match[3]), size)
        return 0
    if status == 200:
        if part:
            raise Refused("the server gives whole files alone: it ignores byte ranges")
        if "Content-Encoding" not in headers:
            _check_size(response.content_length, size)
        return start
    if status == 416:
        raise Mismatch(f"the file on the server ends before byte {start}")
    if status in _PASSING or status >= 500:
        raise Interrupted(f"the server answered HTTP {status}")
    raise Refused("no such file on the server (HTTP 404)" if status == 404 else f"the server answered HTTP {status}")


def _check_size(found: int | None, size: int | None) -> None:
    if found is not None and size is not None and found != size:
        raise Mismatch(f"the server has {found} bytes, the manifest says {size}")
