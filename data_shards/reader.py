"""The reading side by its short name: ``from data_shards.reader import ShardedDataset``."""

from data_shards.reading.reader import ShardedDataset

__all__ = ["ShardedDataset"]
