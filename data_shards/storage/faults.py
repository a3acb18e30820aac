"""The three ways in which a transfer goes wrong. Their texts are our own: those of libraries may hold credentials."""

from __future__ import annotations


class Interrupted(Exception):
    """The connection failed, stalled or ended early; asking again for the rest may help."""


class Mismatch(Exception):
    """What the server sends is not the file of the manifest; only fetching it anew can help."""


class Refused(Exception):
    """The server will not give the file: missing, forbidden. Asking again does not help."""
