"""Images on disk and their order: vocabulary, sources, shards, manifests and the sample stream."""
