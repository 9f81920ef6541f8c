"""Opens a folder with the library it was written for: `python -P checking_library.py FOLDER FILES WORK LIBRARY`.

It runs as a process of its own and imports nothing of keras_dogs. It answers pixels that keras_dogs has prepared, to
compare the models alone, and picture files that the library preprocesses itself, to compare the whole pipeline.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np

_BATCH_SIZE = 32


def main():
    """Answers the pixels and the files, then measures."""
    folder, files, work = map(Path, sys.argv[1:4])
    here = Path(__file__).parent
    began = time.perf_counter()
    prepare, run, names = _load(here / "libraries" / f"{sys.argv[4]}.py").open_model(folder)
    opened = time.perf_counter() - began
    with np.load(work / "pixels.npz") as saved:
        ours = saved["pixels"]
    told, answered, unread = [], [], []
    files = json.loads(files.read_text())
    for start in range(0, len(files), _BATCH_SIZE):
        pixels = []
        for file in files[start : start + _BATCH_SIZE]:
            try:
                pixels.append(prepare(file))
                answered.append(file)
            except Exception as error:  # the library's own, of whatever kind
                unread.append([file, f"{type(error).__name__}: {error}"])
        if pixels:
            told += [names[place] for place in np.argmax(run(np.stack(pixels)), axis=1)]
    arrays = {"files": np.array(answered, str), "told": np.array(told, str), "of_pixels": run(ours)}
    np.savez(work / "answers.npz", **arrays)
    measured = _load(here / "checking.py").measure(run, ours)
    measured |= {"open_s": opened, "class_names": names, "unread": unread}
    (work / "measured.json").write_text(json.dumps(measured), "utf-8")


def _load(file: Path):
    """Imports a program from its path, under a name that no library has."""
    specification = importlib.util.spec_from_file_location(f"keras_dogs_{file.stem}", file)
    module = importlib.util.module_from_spec(specification)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    specification.loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


if __name__ == "__main__":
    main()
