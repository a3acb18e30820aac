"""Documents, and what their site is made with."""
