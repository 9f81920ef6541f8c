"""How fast pictures come in: decoders, our cache and our stream: `python benchmarks/input_pipeline.py --sample FOLDER`.

Decoders turn every file, in memory already, into a uint8 array of 256 x 256 pixels, on one core and on all; ours open
and read the files, too, and write the cache. OpenCV and simplejpeg are not used here and are measured where they are
installed. All take turns, ours in a process that `keras_dogs` has set up; a rate is the median of them.
"""

import argparse
import dataclasses
import io
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import runs

SIZE = 256


def pillow(data: bytes):
    """Decodes as we do: whole, then an antialiased resize."""
    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def pillow_draft(data: bytes):
    """Decodes at half or a quarter where that is still large enough."""
    import numpy as np
    from PIL import Image

    picture = Image.open(io.BytesIO(data))
    picture.draft("RGB", (SIZE, SIZE))
    return np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def opencv(data: bytes):
    """Decodes, and resizes by the nearest that OpenCV has to an antialiased resize."""
    import cv2
    import numpy as np

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def simplejpeg(data: bytes):
    """Decodes by libjpeg-turbo, scaled where that is large enough; Pillow resizes."""
    import numpy as np
    import simplejpeg
    from PIL import Image

    picture = Image.fromarray(simplejpeg.decode_jpeg(data, min_height=SIZE, min_width=SIZE))
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


DECODERS = (pillow, pillow_draft, opencv, simplejpeg)
SPLITS = ("train", "validation", "test")
BUILT, MAPPED, STREAMED = "our cache, built", "our cache, mapped", "our stream"


def main():
    """Measures all of them in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=4800, help="about so many, of all splits")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        answer_with_ours(flags)
        return
    dataset = load(flags)
    files = [
        (flags.sample / "Images" / name).read_bytes() for split in SPLITS for name in getattr(dataset, split).names
    ]
    given = ("--child", "--sample", flags.sample, "--pictures", flags.pictures)
    child = runs.Child("torch", __file__, *given)
    rates: dict = {}
    errors: dict = {}
    for turn in range(flags.rounds):
        for decoder in DECODERS:
            for cores in (1, os.cpu_count()):
                name = decoder.__name__, cores
                try:
                    rates.setdefault(name, []).append(len(files) / _seconds(_decode_all, decoder, files, cores))
                except Exception as error:
                    errors[name] = f"{type(error).__name__}: {error}"
        for what, value in child.ask().items():
            if what == "error":  # of the whole child
                errors[BUILT, os.cpu_count()] = value
            else:
                rates.setdefault((what, os.cpu_count()), []).append(value)
        print(f"turn {turn + 1} of {flags.rounds}", file=sys.stderr)
    child.end()
    runs.write("input_pipeline", [row(name, rates, errors, len(files)) for name in {**rates, **errors}], line=in_words)


def row(name: tuple[str, int], rates: dict, errors: dict, num_pictures: int) -> dict:
    """Returns what is written of a decoder on so many cores, or of ours."""
    what, cores = name
    common = {"backend": "-", "what": what, "num_pictures": num_pictures, "cores": cores}
    if name in errors:
        return {**common, "error": errors[name]}
    if what == MAPPED:
        return {**common, "seconds": runs.spread(rates[name])}
    common["pictures_per_second"] = runs.spread(rates[name])
    if what in (BUILT, STREAMED):
        of_pillow = sorted(own / other for own, other in zip(rates[name], rates["pillow", cores]))
        common["ratio_to_pillow"] = of_pillow
    return common


def load(flags):
    """Loads the dataset with as many of its pictures as are decoded."""
    from keras_dogs.data.datasets import load_dataset

    dataset = load_dataset(str(flags.sample))
    splits = {name: getattr(dataset, name) for name in SPLITS}
    every = max(1, sum(map(len, splits.values())) // flags.pictures)
    chosen = {name: split.select(range(0, len(split), every)) for name, split in splits.items()}
    return dataclasses.replace(dataset, **chosen)


def answer_with_ours(flags) -> None:
    """Does the child's part: the cache when it is built and when it is there, and the stream, a round each time."""
    from keras_dogs import backends
    from keras_dogs.system import caches

    backends.select()
    from keras_dogs.data.loaders.canvases import load_canvases
    from keras_dogs.data.loaders.stream import Undecoded

    dataset = load(flags)
    count = sum(len(getattr(dataset, name)) for name in SPLITS)
    while runs.is_asked():
        found = {}
        with tempfile.TemporaryDirectory() as folder, caches.use(Path(folder)):
            found[BUILT] = count / _seconds(load_canvases, dataset, SPLITS, SIZE)
            found[MAPPED] = _seconds(load_canvases, dataset, SPLITS, SIZE)
        found[STREAMED] = len(dataset.train) // 32 * 32 / _seconds(_stream, Undecoded(dataset.train, SIZE, "squash"))
        runs.answer(found)
    runs.answer({})


def _decode_all(decoder, files: list[bytes], cores: int) -> None:
    with ThreadPoolExecutor(cores) as pool:
        for _ in pool.map(decoder, files):
            pass


def _stream(rows) -> None:
    from keras_dogs.data.loaders.stream import fetch_ahead

    for _ in fetch_ahead(lambda index: rows[index * 32 : index * 32 + 32], len(rows) // 32):
        pass


def _seconds(function, *arguments) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def in_words(row: dict) -> str:
    """Returns the line that is printed of a row."""
    if "seconds" in row:
        return f"{row['what']}: {1000 * row['seconds']['median']:.0f} ms"
    ratio = f", {statistics.median(row['ratio_to_pillow']):.2f} of Pillow" if "ratio_to_pillow" in row else ""
    return f"{row['what']} on {row['cores']} cores: {row['pictures_per_second']['median']:.0f} pictures/s{ratio}"


if __name__ == "__main__":
    main()
