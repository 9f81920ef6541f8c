"""Draw the README's picture: `python scripts/draw_contact_sheet.py docs/drawn_dogs.jpg`."""

import sys

from PIL import Image

from keras_dogs.data.datasets.drawn_dogs import PICTURE_SIZE
from keras_dogs.data.datasets.drawn_dogs import PICTURES_A_BREED
from keras_dogs.data.datasets.drawn_dogs import load_drawn_dogs

ROWS, COLUMNS, GAP = 3, 8, 4


def main(file: str):
    """Two dogs each of the first twelve breeds, side by side."""
    train, step = load_drawn_dogs().train, PICTURE_SIZE + GAP
    sheet = Image.new("RGB", (COLUMNS * step - GAP, ROWS * step - GAP), "white")
    for place in range(ROWS * COLUMNS):
        breed, number = divmod(place, 2)
        picture = train.read(breed * PICTURES_A_BREED["train"] + number)
        sheet.paste(picture, (place % COLUMNS * step, place // COLUMNS * step))
    sheet.save(file, quality=88)


if __name__ == "__main__":
    main(sys.argv[1])
