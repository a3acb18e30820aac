"""Batches for one rank: the sample stream, read ahead by threads or processes."""

from data_shards.stream.sample_stream import SampleStream

__all__ = ["SampleStream"]
