"""How it is told that images are not those of a published archive, which one's own never were."""

from __future__ import annotations

OWN = "your own images"
_OF_THEIR_OWNER = (OWN, "files of their owner")  # how notes begin, the second of shards that were built of such files


def own_images(note: str) -> bool:
    """Whether a note says that the images never were a published archive."""
    return note.startswith(_OF_THEIR_OWNER)


def remark(note: str) -> str:
    """What is said of images that are not official, given why not."""
    return note if own_images(note) else f"not an official dataset: {note}"
