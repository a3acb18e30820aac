"""Why a fitted classifier says what it says of a case: maps in the space of its images, and a tree in its place."""
