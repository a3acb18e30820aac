"""The parts of the writer: chunks, shards, what is watched, and the note from which a build goes on."""
