"""The writing side by its short name: ``from data_shards.writer import write_dataset``."""

from data_shards.writing.writer import write_dataset

__all__ = ["write_dataset"]
