"""Exports a trained classifier to another runtime and checks that it answers the same."""
