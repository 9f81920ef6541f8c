"""Records and verifies the SHA-256 of each file of an exported folder."""

from pathlib import Path

from keras_dogs.errors import UserError
from keras_dogs.exporting.formats import Format
from keras_dogs.runs import exports
from keras_dogs.system import files

_NOT_READ = ("README.md", exports.FILE)  # of a library's folder


def is_hidden(name: Path) -> bool:
    """Returns whether a relative path is hidden, or in a hidden folder: our manifest, what Git and hubs keep."""
    return any(part.startswith(".") for part in name.parts)


def digests_of(folder: Path, row: Format) -> dict[str, str]:
    """Returns the SHA-256 of each file that the runtime reads, by its path in the folder."""
    path = folder / row.file
    if row.is_library:
        found = {file.relative_to(folder): file for file in sorted(folder.rglob("*")) if file.is_file()}
        read = {name: file for name, file in found.items() if name.as_posix() not in _NOT_READ and not is_hidden(name)}
        return {name.as_posix(): files.digest_of(file) for name, file in read.items()}
    beside = [path.with_suffix(".bin"), path.with_name(f"{path.name}.data")]  # weights of OpenVINO, and of large ONNX
    found = [file for file in (path.rglob("*") if path.is_dir() else [path, *beside]) if file.is_file()]
    return {file.relative_to(folder).as_posix(): files.digest_of(file) for file in sorted(found)}


def check(folder: Path, row: Format, expected: dict[str, str]) -> None:
    """Refuses files that are not those which were checked when they were exported.

    Raises:
        UserError: it names the first.
    """
    found = digests_of(folder, row)
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            what = "is not the file that was exported" if name in found and name in expected else "is missing"
            what = what if name in expected else "was not there when it was exported"
            raise UserError(f"{folder / name}: {what}; remove this folder, and export the run again")
