"""Floor 2: backbone, objectives, views, training engine, checkpoints and model bundles."""
