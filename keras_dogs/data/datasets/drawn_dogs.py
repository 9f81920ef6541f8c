"""`drawn_dogs`: dogs drawn by code, so that everything runs with no download and no picture in the repository.

A breed is a combination of eight traits (`drawn_breeds.py`); a picture is one dog of it in its own pose, scale, place,
light and background. The picture is a function of (seed, split, breed, number) alone: the same on every machine that
has the same NumPy and Pillow, and never stored.
"""

import functools
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFilter

from keras_dogs.data.datasets.drawn_breeds import BREEDS
from keras_dogs.data.datasets.drawn_breeds import Breed
from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.errors import UserError
from keras_dogs.errors import write_error
from keras_dogs.system import ownership
from keras_dogs.system import progress

PICTURE_SIZE = 96
PICTURES_A_BREED = {"train": 60, "test": 25}

_OVERSAMPLE = 2
_SPLIT_KEYS = {"train": 0, "test": 1}
_COLOURS = {
    "black": (46, 42, 44),
    "tan": (196, 136, 74),
    "cream": (232, 214, 176),
    "grey": (126, 136, 156),
    "brown": (112, 60, 34),
}
_WHITE = (244, 242, 238)
_DARK = (34, 28, 28)
# What a marking is drawn in: it must show against the coat.
_MARKINGS = {"black": (190, 132, 78), "brown": (214, 176, 120), "tan": _DARK, "cream": (120, 72, 40), "grey": _DARK}


def load_drawn_dogs(seed: int = 0, breeds: tuple[Breed, ...] = BREEDS, pictures_a_breed=None) -> Dataset:
    """Describes the drawn dogs; a picture is drawn when it is read.

    Args:
        seed: int. Another seed draws other dogs of the same breeds.
        breeds: tuple of `Breed`. Which breeds are the classes.
        pictures_a_breed: dict of split name to int. Defaults to `PICTURES_A_BREED`.
    """
    counts = pictures_a_breed or PICTURES_A_BREED
    splits = {name: _describe_split(name, counts[name], seed, breeds) for name in ("train", "test")}
    class_names = tuple(breed.name for breed in breeds)
    return Dataset("drawn_dogs", class_names, train=splits["train"], test=splits["test"])


def write_drawn_dogs(output: Path, train_pictures: int, test_pictures: int, seed: int = 0) -> int:
    """Writes the drawn dogs as PNG files, `train/<breed>/` and `test/<breed>/`; all or nothing.

    Args:
        output: Path. Must not exist, or be an empty folder.
        train_pictures: int. Pictures a breed in train/.
        test_pictures: int. Pictures a breed in test/.
        seed: int. Another seed draws other dogs of the same breeds.

    Returns:
        How many pictures were written.

    Raises:
        UserError: `output` exists and is not empty, or cannot be written.
    """
    ownership.check_output(output, ownership.DRAW)
    if ownership.kind_of(output):
        raise UserError(f"--output {output}: exists and holds drawn dogs; choose another folder")
    dataset = load_drawn_dogs(seed, pictures_a_breed={"train": train_pictures, "test": test_pictures})
    count = len(dataset.train) + len(dataset.test)
    try:
        with (
            ownership.new_folder(output, ownership.DRAW) as partial,
            progress.counting("Drawing (pictures)", count) as on_picture,
        ):
            for part, split in (("train", dataset.train), ("test", dataset.test)):
                for index, name in enumerate(split.names):
                    file = partial / part / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    split.read(index).save(file)
                    on_picture()
    except OSError as error:
        raise write_error(output, error) from error
    return count


def _describe_split(split: str, count: int, seed: int, breeds: tuple[Breed, ...]) -> Split:
    labels = np.repeat(np.arange(len(breeds), dtype=np.int32), count)
    numbers = np.tile(np.arange(count), len(breeds))
    names = tuple(f"{breeds[label].name}/{split}_{seed}_{number:04d}.png" for label, number in zip(labels, numbers))

    def read(index: int) -> Image.Image:
        breed = breeds[labels[index]]
        return draw_dog(breed, np.random.default_rng([seed, _SPLIT_KEYS[split], labels[index], numbers[index]]))

    return Split(names, labels, read, lambda index: f"{_drawing()} {labels[index]}")


@functools.cache
def _drawing() -> str:
    """Returns a hash of the drawing code; together with a picture's label, it is that picture's `stamp`."""
    here = Path(__file__)
    return hashlib.sha256(here.read_bytes() + here.with_name("drawn_breeds.py").read_bytes()).hexdigest()


def draw_dog(breed: Breed, rng: np.random.Generator, size: int = PICTURE_SIZE) -> Image.Image:
    """Draws one dog of `breed`: an RGB picture of `size` x `size`. All that varies within a breed comes from `rng`."""
    pixels = size * _OVERSAMPLE
    background = _paint_background(pixels, rng)
    dog = _Dog(breed, pixels, rng)
    dog.draw()
    background.paste(dog.painted, mask=dog.outline)
    picture = background.resize((size, size), Image.Resampling.BOX)
    return _light(picture, rng)


class _Dog:
    """A dog seen from the side, in its own coordinates: x to the nose, y down, the body around the origin."""

    def __init__(self, breed: Breed, pixels: int, rng: np.random.Generator):
        self.breed = breed
        self.rng = rng
        self.painted = Image.new("RGB", (pixels, pixels))
        self.outline = Image.new("L", (pixels, pixels), 0)
        self._paint = ImageDraw.Draw(self.painted)
        self._mask = ImageDraw.Draw(self.outline)
        self._place(pixels)
        jitter = rng.normal(0, 5, 3) + rng.normal(0, 7)
        self.coat = _shift(_COLOURS[breed.colour], jitter)
        self.marking = _shift(_MARKINGS[breed.colour], jitter)
        self.half_length = {"compact": 0.44, "long": 0.72}[breed.body] * rng.uniform(0.94, 1.06)
        self.half_height = 0.27 * rng.uniform(0.94, 1.08)
        self.leg_length = {"short": 0.24, "tall": 0.60}[breed.legs] * rng.uniform(0.93, 1.07)
        self.head_at = np.array([self.half_length + 0.16, -0.44 + rng.uniform(-0.08, 0.10)])
        self.nod = rng.uniform(-0.25, 0.25)

    def _place(self, pixels: int):
        """Chooses scale, tilt, place and which way the dog faces."""
        angle = self.rng.uniform(-0.25, 0.25)
        scale = pixels * self.rng.uniform(0.34, 0.45) * (0.88 if self.breed.body == "long" else 1.0)
        facing = self.rng.choice([-1.0, 1.0])
        cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
        self._matrix = np.array([[cos * facing, -sin * facing], [sin, cos]])
        self._origin = pixels * (np.array([0.5, 0.52]) + self.rng.uniform(-0.14, 0.14, 2))
        self._origin[0] -= facing * 0.06 * scale

    def draw(self):
        """Draws from back to front: far legs, tail, torso, head."""
        stride = self.rng.uniform(-0.16, 0.16)
        self._legs(stride, far=True)
        self._tail()
        self._torso()
        self._legs(-stride, far=False)
        self._head()

    def _pixels(self, points):
        return [tuple(point) for point in np.asarray(points) @ self._matrix.T + self._origin]

    def _polygon(self, points, colour, solid=True):
        """Fills a polygon; one that is not `solid` is a marking, which adds nothing to the outline of the dog."""
        points = self._pixels(points)
        self._paint.polygon(points, fill=colour)
        if solid:
            self._mask.polygon(points, fill=255)

    def _ellipse(self, centre, radii, colour, angle=0.0, solid=True, shaggy=None):
        shaggy = self.breed.coat == "shaggy" if shaggy is None else shaggy
        turns = np.linspace(0, 2 * np.pi, 45)[:-1]
        reach = 1.0 + (0.16 * (np.arange(44) % 2) + self.rng.uniform(-0.05, 0.05, 44) if shaggy else np.zeros(44))
        points = np.stack([np.cos(turns) * radii[0] * reach, np.sin(turns) * radii[1] * reach], axis=1)
        self._polygon(points @ _rotation(angle).T + centre, colour, solid)

    def _limb(self, points, widths, colour):
        """Draws a bent, tapering limb through `points`, with round joints."""
        points, widths = np.asarray(points, float), np.asarray(widths, float)
        for start, end, first, last in zip(points[:-1], points[1:], widths[:-1], widths[1:]):
            along = end - start
            across = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-9)
            corners = [start + across * first, end + across * last, end - across * last, start - across * first]
            self._polygon(corners, colour)
        for point, width in zip(points, widths):
            self._ellipse(point, (width, width), colour, shaggy=False)

    def _legs(self, stride: float, far: bool):
        coat = _shift(self.coat, -26) if far else self.coat
        foot = _shift(self.marking, -26 if far else 0) if self.breed.pattern == "mask" else coat
        width = 0.085 if self.breed.coat == "smooth" else 0.115
        for hip, swing in ((-self.half_length * 0.72, stride), (self.half_length * 0.72, -stride)):
            top = np.array([hip + (0.09 if far else 0.0), self.half_height * 0.55])
            knee = top + [swing * self.leg_length * 0.6 - 0.03, self.leg_length * 0.62]
            paw = top + [swing * self.leg_length * 1.5, self.half_height * 0.45 + self.leg_length]
            self._limb([top, knee], [width * 1.25, width], coat)
            self._limb([knee, paw, paw + [0.07, 0.0]], [width, width * 0.9, width * 0.8], foot)

    def _tail(self):
        root = np.array([-self.half_length * 0.94, -self.half_height * 0.45])
        lift = self.rng.uniform(-0.10, 0.10)
        if self.breed.tail == "docked":
            self._limb([root, root + [-0.10, -0.08]], [0.075, 0.065], self.coat)
        elif self.breed.tail == "curl":
            turns = np.linspace(0, 1.75 * np.pi, 14)
            radius = 0.19 - 0.075 * turns / turns[-1]
            ring = np.stack([-np.sin(turns) * radius, np.cos(turns) * radius], axis=1)
            self._limb(root + [0.0, -0.17] + ring, [0.062] * 14, self.coat)
        elif self.breed.tail == "sabre":
            self._limb(
                [root, root + [-0.22, -0.16 + lift], root + [-0.36, -0.44 + lift]], [0.06, 0.045, 0.025], self.coat
            )
        else:
            self._ellipse(root + [-0.25, 0.16 + lift], (0.34, 0.145), self.coat, angle=-0.75 + lift * 2, shaggy=True)

    def _torso(self):
        self._ellipse((0, 0), (self.half_length, self.half_height), self.coat)
        self._ellipse((self.half_length * 0.62, 0.0), (0.30, self.half_height * 1.12), self.coat)
        neck = [(self.half_length * 0.5, -0.18), (self.half_length * 0.98, 0.06)]
        self._polygon([neck[0], self.head_at + [-0.14, -0.06], self.head_at + [0.10, 0.10], neck[1]], self.coat)
        self._mark_torso()

    def _mark_torso(self):
        pattern, length, height, rng = self.breed.pattern, self.half_length, self.half_height, self.rng
        if pattern == "saddle":
            centre = (rng.uniform(-0.12, 0.0), -height * 0.62)
            self._ellipse(centre, (length * 0.80, height * 0.66), self.marking, solid=False, shaggy=False)
        elif pattern == "patches":
            for _ in range(rng.integers(3, 5)):
                centre = (rng.uniform(-length, length) * 0.85, rng.uniform(-height, height) * 0.8)
                radii = rng.uniform(0.13, 0.22, 2)
                self._ellipse(centre, radii, _WHITE, angle=rng.uniform(0, 3), solid=False, shaggy=False)
            self._ellipse((length * 0.86, 0.04), (0.15, 0.24), _WHITE, solid=False, shaggy=False)
        elif pattern == "spots":
            for _ in range(int(34 * length)):
                centre = (rng.uniform(-length, length), rng.uniform(-height, height))
                radius = rng.uniform(0.030, 0.052)
                self._ellipse(centre, (radius, radius), self.marking, solid=False, shaggy=False)

    def _head(self):
        turn = _rotation(self.nod)

        def at(x, y):
            return self.head_at + turn @ np.array([x, y])

        masked = self.breed.pattern == "mask"
        face = self.marking if masked else self.coat
        reach = {"long": 0.42, "short": 0.19}[self.breed.muzzle] * self.rng.uniform(0.94, 1.06)
        if self.breed.ears != "erect":
            self._ear(at, _shift(self.coat, -22), behind=True)
        self._ellipse(self.head_at, (0.215, 0.20), self.coat)
        if self.breed.ears == "erect":
            self._ear(at, self.coat, behind=False)
        depth = {"long": 0.085, "short": 0.125}[self.breed.muzzle]
        self._limb([at(0.09, 0.06), at(reach, 0.09)], [0.125, depth], face)
        nose = at(reach + depth * 0.7, 0.09 - depth * 0.45)
        self._ellipse(nose, (0.045, 0.04), (20, 18, 20), shaggy=False)
        self._ellipse(at(0.085, -0.055), (0.033, 0.033), (16, 14, 16), shaggy=False)
        if self.breed.pattern == "patches":
            self._ellipse(at(0.12, -0.10), (0.06, 0.08), _WHITE, solid=False, shaggy=False)
        if self.breed.ears != "erect":
            self._ear(at, _shift(face if masked else self.coat, -16), behind=False)

    def _ear(self, at, colour, behind: bool):
        flick = self.rng.uniform(-0.04, 0.04)
        if self.breed.ears == "erect":
            for offset in (-0.15, -0.01):
                corners = [at(offset - 0.04, -0.08), at(offset + 0.01 + flick, -0.42), at(offset + 0.14, -0.13)]
                self._polygon(corners, colour)
        elif self.breed.ears == "drop":
            offset = 0.05 if behind else -0.10
            self._ellipse(at(offset + flick, 0.13), (0.095, 0.25), colour, angle=0.12, shaggy=False)
        else:
            offset = 0.04 if behind else -0.10
            corners = [at(offset - 0.10, -0.13), at(offset, -0.27), at(offset + 0.13, -0.15), at(offset + 0.12, 0.0)]
            self._polygon(corners, colour)


def _paint_background(pixels: int, rng: np.random.Generator) -> Image.Image:
    """Paints sky or wall over ground, a few shapes, and a texture; nothing in it tells the breed."""
    top, bottom = _muted_colours(rng, 2)
    horizon = rng.uniform(0.45, 0.85)
    rows = np.linspace(0, 1, pixels, dtype=np.float32)[:, None, None]
    ground = 1.0 / (1.0 + np.exp(-(rows - horizon) * rng.uniform(12, 90)))
    field = top * (1 - ground) + bottom * ground + rng.normal(0, 14) * (rows - 0.5)
    picture = Image.fromarray(np.broadcast_to(field, (pixels, pixels, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for colour in _muted_colours(rng, rng.integers(3, 10)):
        x, y = rng.uniform(0, pixels, 2)
        width, height = rng.uniform(0.05, 0.28, 2) * pixels
        box = (x - width, y - height, x + width, y + height)
        (draw.ellipse if rng.random() < 0.6 else draw.rectangle)(box, fill=_shift(colour, 0))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(1.2, 4.0)))


def _muted_colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns random colours such as those of walls, grass and sky: halfway to grey."""
    colours = rng.uniform(40, 245, (count, 3)).astype(np.float32)
    return 0.5 * colours + 0.5 * colours.mean(axis=1, keepdims=True)


def _light(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Applies exposure, a tint, a gradient of light across the picture, and sensor noise."""
    pixels = np.asarray(picture, np.float32)
    size = len(pixels)
    across = np.linspace(-1, 1, size, dtype=np.float32)
    shade = 1.0 + rng.uniform(-0.18, 0.18) * across[None, :, None] + rng.uniform(-0.18, 0.18) * across[:, None, None]
    gain = rng.uniform(0.78, 1.16) * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    noise = rng.normal(0, rng.uniform(2, 6), pixels.shape)
    return Image.fromarray((pixels * shade * gain + noise).clip(0, 255).astype(np.uint8))


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _shift(colour, by) -> tuple[int, int, int]:
    return tuple(int(value) for value in np.clip(np.asarray(colour) + by, 0, 255))
