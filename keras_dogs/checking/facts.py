"""Facts about the files of a dataset, without a model."""

import collections
import contextlib
import unicodedata

import numpy as np

from keras_dogs.checking import schema
from keras_dogs.checking.pool import Pool
from keras_dogs.data.datasets.pictures import is_left_by_tools
from keras_dogs.data.datasets.pictures import is_picture
from keras_dogs.system import terminal

_TINY = 64  # pixels of the shorter side; models see 224
_LONG = 3.0  # longer side to shorter: little is left after resizing to a square
_BLACK, _UNIFORM = 16, 8  # grey levels of 255: mean, standard deviation


def facts_of(pool: Pool) -> schema.Facts:
    """Gathers the facts; names are as the dataset has them."""
    looks = pool.looks
    sides = [min(look.width, look.height) for look in looks if look]

    def names_where(holds) -> list[str]:
        return [name for name, look in zip(pool.names, looks) if look and holds(look)]

    return {
        "splits": dict(collections.Counter(pool.splits)),
        "num_classes": len(pool.class_names),
        "pictures_a_class": _range(np.bincount(pool.labels, minlength=len(pool.class_names))),
        "shorter_side": _range(sides),
        "formats": dict(collections.Counter(look.format for look in looks if look and look.format).most_common()),
        "unreadable": [
            {"name": pool.names[index], "reason": terminal.printable(reason)}
            for index, reason in pool.unreadable.items()
        ],
        "tiny": names_where(lambda look: min(look.width, look.height) < _TINY),
        "long": names_where(lambda look: max(look.width, look.height) > _LONG * min(look.width, look.height)),
        "nearly_black": names_where(lambda look: look.brightness < _BLACK),
        "nearly_uniform": names_where(lambda look: look.contrast < _UNIFORM),
        "grey": names_where(lambda look: look.is_grey),
        "turned_by_exif": names_where(lambda look: look.orientation != 1),
        "names_alike": _names_alike(pool),
        "no_pictures": _no_pictures(pool),
    }


def _range(values) -> schema.Range:
    values = np.asarray(values if len(values) else [0])
    return {"least": float(values.min()), "median": float(np.median(values)), "most": float(values.max())}


def _names_alike(pool: Pool) -> list[list[str]]:
    """Returns groups of names that differ only in case or Unicode normalisation: some file systems merge them."""
    found = collections.defaultdict(set)
    for name in (*pool.names, *pool.class_names):
        found[unicodedata.normalize("NFC", name).casefold()].add(name)
    return [sorted(names) for names in found.values() if len(names) > 1]


def _no_pictures(pool: Pool) -> list[str]:
    """Returns the paths of the files in the folders of pictures that are not recognised as pictures."""
    files = (pool.file(index) for index in range(len(pool.names)))
    found = []
    for folder in sorted({file.parent for file in files if file is not None}):
        with contextlib.suppress(OSError):  # a folder whose files can be opened, but not listed
            found += [file for file in sorted(folder.iterdir()) if file.is_file()]
    return [str(file) for file in found if not is_left_by_tools(file.name) and not is_picture(file)]
