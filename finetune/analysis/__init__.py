"""Tools that look into training; nothing of the system depends on them."""
