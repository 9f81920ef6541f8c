"""A folder as a dataset: `class/picture`, `train/ validation/ test/` of them, or the official Stanford layout."""

import collections
import re
from pathlib import Path

import numpy as np

from keras_dogs.data.datasets.opening import open_picture
from keras_dogs.data.datasets.pictures import HEIF_HINT
from keras_dogs.data.datasets.pictures import HEIF_SUFFIXES
from keras_dogs.data.datasets.pictures import files_in
from keras_dogs.data.datasets.pictures import is_left_by_tools
from keras_dogs.data.datasets.pictures import is_picture
from keras_dogs.data.datasets.pictures import stamp_of
from keras_dogs.data.datasets.splits import Dataset
from keras_dogs.data.datasets.splits import Split
from keras_dogs.data.datasets.splits import stratified_split
from keras_dogs.errors import UserError

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
# Names of splits that are not read as such, as in Kaggle's `training_set/`: no class is called so.
_LIKE_A_SPLIT = re.compile(r"(train|training|validation|valid|val|test|testing)([ _-]?(set|data|images|split))?")
_LAYOUTS = "class/picture, train/class/picture with test/class/picture, or Images/ with lists/"

# A flat folder has no test split of its own: this share of each class becomes one.
TEST_FRACTION = 0.2


def load_folder(path: Path, seed: int = 0) -> Dataset:
    """Describes a folder of pictures; the layout is recognised by what is in it, and no picture is opened yet.

    Args:
        path: Path. The folder.
        seed: int. Which pictures of a flat folder become the test split depends on it alone.

    Raises:
        UserError: the folder is missing, empty, or in none of the three layouts.
    """
    if not path.is_dir():
        raise UserError(
            f"--dataset {path}: {'not a folder' if path.exists() else 'no such folder, nor a dataset name'}"
        )
    if (path / "Images").is_dir() and (path / "lists").is_dir():
        return load_official_layout(path)
    parts = {split: _find_split(path, names) for split, names in _SPLIT_NAMES.items()}
    if parts["train"]:
        return _load_split_folders(path, parts)
    return _load_flat(path, seed)


def load_official_layout(path: Path) -> Dataset:
    """Reads the layout of the official archives.

    `Images/<wnid-breed>/<file>.jpg` and `lists/{train,test}_list.{mat,txt}`, where a text list has a path a line.
    Class names are the folder names in lower case, as TensorFlow Datasets has them.
    """
    lists = {split: _read_list(path, split) for split in ("train", "test")}
    notes = []
    for split, names in lists.items():
        lists[split] = list(dict.fromkeys(names))  # a picture listed twice could be in both train and validation
        if repeated := len(names) - len(lists[split]):
            notes.append(f"the {split} list names {repeated} of its pictures more than once; each is taken once")
    overlap = set(lists["train"]) & set(lists["test"])
    if overlap:
        raise UserError(f"--dataset {path}: {sorted(overlap)[0]} is in both the train and the test list")
    class_names = tuple(sorted({name.split("/")[0].lower() for names in lists.values() for name in names}))
    labels = {name: label for label, name in enumerate(class_names)}
    splits = {
        split: _files_split(path / "Images", names, [labels[name.split("/")[0].lower()] for name in names])
        for split, names in lists.items()
    }
    _refuse_one_class(path, class_names)
    return Dataset(path.resolve().name, class_names, **splits, notes=tuple(notes))


def _read_list(path: Path, split: str) -> list[str]:
    text, matlab = path / "lists" / f"{split}_list.txt", path / "lists" / f"{split}_list.mat"
    try:
        if text.is_file():
            lines = text.read_text("utf-8").split("\n")
        elif matlab.is_file():
            lines = _read_matlab_list(matlab)
        else:
            raise UserError(f"--dataset {path}: lists/ holds neither {text.name} nor {matlab.name}")
    except (OSError, ValueError) as error:
        raise UserError(f"--dataset {path}: cannot read the {split} list: {error}") from error
    names = [line.strip().removeprefix("Images/") for line in lines if line.strip()]
    if not names:
        raise UserError(f"--dataset {path}: the {split} list in lists/ is empty")
    for name in names:
        if not (path / "Images" / name).is_file():
            raise UserError(f"--dataset {path}: the {split} list names Images/{name}, which is not there")
    return names


def _read_matlab_list(file: Path) -> list[str]:
    from scipy.io import loadmat  # here: scipy.io takes a while to load and few need it

    try:
        return [str(name) for name in np.atleast_1d(loadmat(file, squeeze_me=True)["file_list"])]
    except (KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{file.name} is not one of the official lists ({error})") from error


def _find_split(path: Path, names: tuple[str, ...]) -> Path | None:
    """Returns the folder of a split, whatever the case of its name.

    Raises:
        UserError: there are two.
    """
    found = sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name.lower() in names)
    if len(found) > 1:
        raise UserError(f"--dataset {path}: {found[0].name}/ and {found[1].name}/ are both there; keep one of them")
    return found[0] if found else None


def _load_split_folders(path: Path, parts: dict[str, Path | None]) -> Dataset:
    class_names = _class_folders(parts["train"])
    if not class_names:
        raise UserError(f"--dataset {path}: no pictures in {parts['train'].name}/<class>/")
    _refuse_one_class(parts["train"], class_names)
    splits, notes = {}, []
    for split, part in parts.items():
        if part is None:
            continue
        own = _class_folders(part)
        strangers = sorted(set(own) - set(class_names))
        if strangers:
            raise UserError(
                f"--dataset {path}: class '{strangers[0]}' is in {part.name}/ but not in {parts['train'].name}/"
            )
        names, labels = _list_pictures(part, class_names)
        notes += _left_out(part, class_names)
        if not names and split == "validation":
            notes.append(f"{part.name}/ holds no picture; validation pictures are taken from {parts['train'].name}/")
            continue
        if lacking := [name for name in class_names if name not in own]:
            notes.append(f"no {split} picture of: {', '.join(_few(lacking))}")
        splits[split] = _files_split(path, [f"{part.name}/{name}" for name in names], labels)
    if "test" not in splits:
        raise UserError(f"--dataset {path}: there is a {parts['train'].name}/ but no test/ to score the classifier on")
    if not len(splits["test"]):
        raise UserError(f"--dataset {path}: no pictures in {parts['test'].name}/<class>/")
    return Dataset(path.resolve().name, class_names, **splits, notes=tuple(notes))


def _load_flat(path: Path, seed: int) -> Dataset:
    class_names = _class_folders(path)
    if not class_names:
        if not any(path.iterdir()):
            raise UserError(f"--dataset {path}: the folder is empty; it should hold {_LAYOUTS}")
        raise UserError(f"--dataset {path}: no pictures found; the folder should hold {_LAYOUTS}")
    _refuse_one_class(path, class_names)
    if like := next((name for name in class_names if _LIKE_A_SPLIT.fullmatch(name.lower())), None):
        raise UserError(
            f"--dataset {path}: {like}/ looks like a split, but there is no train/; rename the folders to train/, "
            "test/ and, if you have one, validation/ (or rename this one, if it is a class)"
        )
    names, labels = _list_pictures(path, class_names)
    counts = np.bincount(labels, minlength=len(class_names))
    if counts.min() < 3:
        scarce = class_names[int(counts.argmin())]
        count = {1: "one picture", 2: "two pictures"}[int(counts.min())]
        raise UserError(
            f"--dataset {path}: class '{scarce}' has {count}; a folder that is split here needs at least three a class "
            "(train, validation, test): add pictures or remove the class"
        )
    everything = _files_split(path, names, labels)
    train, test = stratified_split(everything.labels, TEST_FRACTION, seed, class_names)
    notes = tuple(_left_out(path, class_names))
    name = path.resolve().name
    return Dataset(name, class_names, train=everything.select(train), test=everything.select(test), notes=notes)


def _refuse_one_class(path: Path, class_names: tuple[str, ...]) -> None:
    """Refuses a dataset with only one class, which usually means that the folder is one level too high.

    Raises:
        UserError: there is only one class; the text shows the folders that were found.
    """
    if len(class_names) > 1:
        return
    (only,) = class_names
    below = _class_folders(path / only) if (path / only).is_dir() else ()
    if any(name.lower() in names for names in _SPLIT_NAMES.values() for name in (only, *below)) or len(below) > 1:
        shown = ", ".join(f"{only}/{name}" for name in below[:4]) + (", ..." if len(below) > 4 else "")
        raise UserError(f"--dataset {path}: all pictures are below {only}/ ({shown}); give --dataset {path / only}")
    raise UserError(f"--dataset {path}: one class, '{only}'; a classifier needs two or more, a folder each")


def _left_out(path: Path, class_names: tuple[str, ...]) -> list[str]:
    """Counts and names what is not taken: files that are no pictures, folders without one, pictures in no folder."""
    entries = sorted(entry for entry in path.iterdir() if not is_left_by_tools(entry.name))
    folders = [entry for entry in entries if entry.is_dir()]
    empty = [folder.name for folder in folders if folder.name not in class_names]
    loose = [entry.name for entry in entries if entry.is_file() and is_picture(entry)]
    where, notes = path.resolve().name, []
    if empty:
        named = ", ".join(_few([f"{where}/{name}" for name in empty]))
        notes.append(f"folders without pictures, which become no class: {named}")
    if loose:
        notes.append(f"pictures left out of {where}/, as they are in no class folder: {', '.join(_few(loose))}")
    if not (files := [file for folder in folders for file in files_in(folder) if not is_picture(file)]):
        return notes
    kinds = collections.Counter(file.suffix.lower() or "no suffix" for file in files).most_common(4)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds)
    hint = f"; {HEIF_HINT}" if any(kind in HEIF_SUFFIXES for kind, _ in kinds) else ""
    first = files[0].relative_to(path).as_posix()
    return [*notes, f"left out of {where}/ as no pictures: {counted}, such as {first}{hint}"]


def _few(names: list[str]) -> list[str]:
    return [*names[:10], *["..."] * (len(names) > 10)]


def _class_folders(path: Path) -> tuple[str, ...]:
    """Returns the sorted names of the sub-folders that hold at least one picture."""
    folders = (entry for entry in path.iterdir() if entry.is_dir() and not is_left_by_tools(entry.name))
    return tuple(sorted(folder.name for folder in folders if next(_pictures_in(folder), None)))


def _pictures_in(folder: Path):
    return (file for file in files_in(folder) if is_picture(file)) if folder.is_dir() else iter(())


def _list_pictures(path: Path, class_names: tuple[str, ...]) -> tuple[list[str], list[int]]:
    names, labels = [], []
    for label, class_name in enumerate(class_names):
        files = sorted(file.relative_to(path).as_posix() for file in _pictures_in(path / class_name))
        names += files
        labels += [label] * len(files)
    return names, labels


def _files_split(root: Path, names, labels) -> Split:
    names = tuple(names)
    return Split(
        names,
        np.asarray(labels, dtype=np.int32),
        lambda index: open_picture(root / names[index]),
        lambda index: stamp_of(root / names[index]),
        lambda index: root / names[index],
    )
