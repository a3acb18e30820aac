"""Programs for other software, run by its own interpreter because its requirements exclude ours."""
