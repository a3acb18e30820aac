"""Search for hyper-parameters and architectures over a pretraining or a fine-tuning, by Ray Tune."""
