"""Tests of the readers for single files, and of listings of folders and tables."""
