"""One data set opened: records by position, out of open shards."""
