"""One training, from its config to its run folder."""
