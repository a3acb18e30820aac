"""Numerical phantoms: synthetic organ images with the variability of a task, not the physics of a scanner."""
