"""Where studies come from, one file for each source."""
