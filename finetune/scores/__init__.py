"""Scores of predictions, and their intervals over subjects."""
