"""Answers over HTTP: the models behind a queue, the routes, and the page."""
