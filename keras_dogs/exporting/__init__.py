"""A trained classifier as a file of another runtime, with the check that it answers the same."""
