"""The data doctor: what is wrong with a dataset, and what that means for a score."""
