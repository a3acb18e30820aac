"""The model anatomy of one subject: tissues as shapes, painted one over the other."""
