"""Policies of augmentation, one YAML document each."""
