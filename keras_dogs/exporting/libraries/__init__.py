"""Opens folders by the library that they were written for: one module per library, by its name in the table of formats.

Each has one function, `open_model`: from the folder to a `prepare` of a picture file to pixels as the library makes
them, float32 `(rows, columns, 3)`; a `run` of a batch of such pixels to logits, float32 `(batch, num_classes)`; and the
names of the classes. Nothing of ours is imported: these are the calls that a user of the library makes.
"""
