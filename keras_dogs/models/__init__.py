"""Builders, the classifier, the presets and where their weights come from."""
