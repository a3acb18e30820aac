"""Pictures of a run: what the network sees, and where it puts what it sees."""
