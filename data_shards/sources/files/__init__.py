"""Readers of image files, one for each format, each bounded in memory and quiet about whom a file shows."""
