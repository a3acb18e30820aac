"""Comparisons of models, heads and strategies on labelled sets."""
