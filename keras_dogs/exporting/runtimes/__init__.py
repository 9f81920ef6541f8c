"""Opens exported files: one module per format, by its name in the table.

Each needs its runtime and NumPy alone, and has one function, `open_model`: from the exported folder to a function of
canvases, uint8 `(batch, rows, columns, 3)`, to logits and probabilities, float32 `(batch, num_classes)`; and the names
of the classes, as the exported file has them. The runtime is imported there, so that its absence can be said in a line.
"""
