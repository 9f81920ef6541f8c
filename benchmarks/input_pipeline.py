"""How fast pictures come in: decoders, our cache and our stream: `python benchmarks/input_pipeline.py --sample FOLDER`.

Decoders read every file of the train split to a square of 256 pixels, on one core and on all; OpenCV and simplejpeg are
not used here and are measured where they are installed. Rounds take turns; a rate is the median of them.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import runs

SIZE = 256


def pillow(data: bytes):
    """As we do: decode whole, then an antialiased resize."""
    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def pillow_draft(data: bytes):
    """Decoded at half or a quarter where that is still large enough."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data))
    picture.draft("RGB", (SIZE, SIZE))
    return picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def opencv(data: bytes):
    """Decode, and the nearest that OpenCV has to an antialiased resize."""
    import cv2
    import numpy as np

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def simplejpeg(data: bytes):
    """libjpeg-turbo decodes, scaled where that is large enough; Pillow resizes."""
    import simplejpeg
    from PIL import Image

    picture = Image.fromarray(simplejpeg.decode_jpeg(data, min_height=SIZE, min_width=SIZE))
    return picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


DECODERS = (pillow, pillow_draft, opencv, simplejpeg)


def main():
    """Measures all of them, then our own two ways beside Pillow on all cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    from keras_dogs.datasets import load_dataset

    dataset = load_dataset(str(flags.sample))
    split = dataset.train.select(range(0, len(dataset.train), max(1, len(dataset.train) // flags.pictures)))
    files = [(flags.sample / "Images" / name).read_bytes() for name in split.names]
    rows = decode(files, flags.rounds) + ours(dataset, split, flags.rounds)
    runs.write("input_pipeline", rows, line=in_words)


def decode(files: list[bytes], rounds: int) -> list[dict]:
    """A row a decoder and a number of cores."""
    rows = []
    for decoder in DECODERS:
        row = {"backend": "-", "what": decoder.__name__, "num_pictures": len(files)}
        try:
            decoder(files[0])
        except Exception as error:
            rows.append({**row, "error": f"{type(error).__name__}: {error}"})
            continue
        for cores in (1, os.cpu_count()):
            rates = [len(files) / _seconds(_decode_all, decoder, files, cores) for _ in range(rounds)]
            rows.append({**row, "cores": cores, "pictures_per_second": _spread(rates)})
    return rows


def _decode_all(decoder, files: list[bytes], cores: int) -> None:
    with ThreadPoolExecutor(cores) as pool:
        for _ in pool.map(decoder, files):
            pass


def ours(dataset, split, rounds: int) -> list[dict]:
    """The cache when it is built and when it is there, and the stream."""
    import dataclasses

    from keras_dogs import caches
    from keras_dogs.loaders.canvases import load_canvases
    from keras_dogs.loaders.stream import Undecoded

    small = dataclasses.replace(dataset, train=split, validation=None)
    built, mapped, streamed = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            caches.use(Path(folder))
            built.append(len(split) / _seconds(load_canvases, small, ["train"], SIZE))
            mapped.append(_seconds(load_canvases, small, ["train"], SIZE))
        streamed.append(len(split) // 32 * 32 / _seconds(_stream, Undecoded(split, SIZE, "squash")))
    common = {"backend": "-", "num_pictures": len(split), "cores": os.cpu_count()}
    return [
        {**common, "what": "our cache, built", "pictures_per_second": _spread(built)},
        {**common, "what": "our cache, mapped", "seconds": _spread(mapped)},
        {**common, "what": "our stream", "pictures_per_second": _spread(streamed)},
    ]


def _stream(rows) -> None:
    from keras_dogs.loaders.stream import fetch_ahead

    for _ in fetch_ahead(lambda index: rows[index * 32 : index * 32 + 32], len(rows) // 32):
        pass


def _seconds(function, *arguments) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def _spread(values) -> dict:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def in_words(row: dict) -> str:
    """What is printed of a row."""
    if "seconds" in row:
        return f"{row['what']}: {1000 * row['seconds']['median']:.0f} ms"
    return f"{row['what']} on {row['cores']} cores: {row['pictures_per_second']['median']:.0f} pictures/s"


if __name__ == "__main__":
    main()
