"""Our shards as a webdataset pipeline: ``from data_shards.pipeline import webdataset_pipeline``."""

from data_shards.stream.shard_pipeline import ShardPipeline, webdataset_pipeline

__all__ = ["ShardPipeline", "webdataset_pipeline"]
