"""The main job end to end, small: images to shards to model to registry to few-label result page."""
