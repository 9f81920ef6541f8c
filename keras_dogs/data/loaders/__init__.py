"""From a `Split` to what `fit` eats: pictures decoded once to canvases, then batches in a reproducible order."""
