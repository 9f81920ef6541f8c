"""Which pictures there are, and how they reach a step."""
