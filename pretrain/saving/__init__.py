"""How checkpoints are written beside the training: copied in memory, written by a thread, kept by a policy, copied."""
