"""Content that only the holder of a secret can read: for what has to be kept beside data and may not be disclosed."""

from __future__ import annotations

import hashlib
import hmac
import os

import numpy as np

_NONCE_BYTES = _MARK_BYTES = 32


def seal(content: bytes, secret: str) -> bytes:
    """The content, unreadable without ``secret``; twice the same content gives two different results.

    A stream cipher from SHAKE-256 (FIPS 202) under a key and a nonce that is used once, then a mark by HMAC-SHA-256
    over what is written, so that a change does not go unnoticed.
    """
    nonce = os.urandom(_NONCE_BYTES)
    hidden = _mixed(content, secret, nonce)
    return _mark(nonce + hidden, secret) + nonce + hidden


def unseal(sealed: bytes, secret: str) -> bytes | None:
    """What was sealed; None when it was sealed with another secret, changed, or cut short."""
    mark, rest = sealed[:_MARK_BYTES], sealed[_MARK_BYTES:]
    if len(rest) < _NONCE_BYTES or not hmac.compare_digest(mark, _mark(rest, secret)):
        return None
    return _mixed(rest[_NONCE_BYTES:], secret, rest[:_NONCE_BYTES])


def _mixed(content: bytes, secret: str, nonce: bytes) -> bytes:
    stream = hashlib.shake_256(_key(secret, b"stream") + nonce).digest(len(content))
    return (np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()


def _mark(content: bytes, secret: str) -> bytes:
    return hmac.digest(_key(secret, b"mark"), content, "sha256")


def _key(secret: str, use: bytes) -> bytes:
    return hmac.digest(secret.encode(), use, "sha256")
