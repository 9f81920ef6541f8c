"""A file a format, by its name in the table: it opens what was exported. Exported folders take it along.

Each needs its runtime and NumPy alone, and has one function, `open_model`: from the exported folder to a function of
canvases, uint8 `(batch, rows, columns, 3)`, to logits and probabilities, float32 `(batch, num_classes)`; and the names
of the classes, as the exported file has them.
"""
