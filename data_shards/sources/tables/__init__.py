"""Tables: how their files are read, which column is what, and what their cells say. One reading for all commands."""
