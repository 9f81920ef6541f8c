"""The real TensorFlow Datasets builder on small archives in the official layout."""

import concurrent.futures
import hashlib
import io
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from conftest import BACKEND
from conftest import is_installed
from PIL import Image
from scipy.io import savemat

from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.datasets import stanford_dogs
from keras_dogs.errors import UserError

pytestmark = pytest.mark.skipif(
    not all(map(is_installed, ("tensorflow", "tensorflow_datasets", "array_record"))),
    reason="preparing needs the extra stanford-dogs",
)

# The builder wants 120 breeds; a breed here is a colour.
NAMES = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", *(f"n{2100000 + k:08}-Breed_{k}" for k in range(118))]
BREEDS = {name: (20 + 9 * (k % 24), 20 + 40 * (k // 24), 128) for k, name in enumerate(NAMES)}
ANNOTATION = (
    "<annotation><size><width>40</width><height>30</height></size><object><bndbox>"
    "<xmin>2</xmin><ymin>3</ymin><xmax>30</xmax><ymax>25</ymax></bndbox></object></annotation>"
)

PREPARE = """
import sys
from pathlib import Path
import tensorflow_datasets as tfds
from keras_dogs.data.datasets import stanford_dogs
folder = Path(sys.argv[1])
builder_class = tfds.builder_cls("stanford_dogs")
# The builder knows the size and hash of the real archives; ours are others, everything else is its own code.
infos = builder_class.url_infos
for line in (folder / "checksums").read_text().splitlines():
    name, size, digest = line.split()
    url = next(url for url in infos if url.endswith(name))
    infos[url] = type(infos[url])(size=int(size), checksum=digest, filename=name)
stanford_dogs.prepare(folder)
"""


def add(archive, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def write_archives(folder):
    """Three pictures a breed: two to train on, one to test."""
    names = [f"{breed}/{breed.split('-')[0]}_{number}" for breed in BREEDS for number in range(3)]
    images, annotations = (tarfile.open(folder / name, "w") for name in ("images.tar", "annotation.tar"))
    with images, annotations:
        for name in names:
            picture = io.BytesIO()
            Image.new("RGB", (40, 30), BREEDS[name.split("/")[0]]).save(picture, "JPEG", quality=95)
            add(images, f"Images/{name}.jpg", picture.getvalue())
            add(annotations, f"Annotation/{name}", ANNOTATION.encode())
    with tarfile.open(folder / "lists.tar", "w") as lists:
        for split, chosen in (("train", ("0", "1")), ("test", ("2",))):
            files = [f"{name}.jpg" for name in names if name[-1] in chosen]
            matlab = io.BytesIO()
            savemat(matlab, {"file_list": np.array(files, dtype=object).reshape(-1, 1)})
            add(lists, f"{split}_list.mat", matlab.getvalue())
    with (folder / "checksums").open("w") as file:
        for name in stanford_dogs.ARCHIVES:
            content = (folder / name).read_bytes()
            file.write(f"{name} {len(content)} {hashlib.sha256(content).hexdigest()}\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    write_archives(folder)
    finished = subprocess.run([sys.executable, "-c", PREPARE, folder], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.mark.once
def test_archives_that_were_fetched_by_hand(prepared):
    assert stanford_dogs.is_prepared(prepared)
    dataset = load_dataset("stanford_dogs", data_dir=prepared)
    assert dataset.class_names == tuple(name.lower() for name in NAMES)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [120, 120, 120]
    assert dataset.test.names[:2] == (
        "Images/n02085620-Chihuahua/n02085620_2.jpg",
        "Images/n02085782-Japanese_spaniel/n02085782_2.jpg",
    )
    for split in (dataset.train, dataset.validation, dataset.test):
        for index, label in enumerate(split.labels):
            picture = split.read(index)
            assert picture.size == (40, 30)
            assert np.abs(np.subtract(picture.getpixel((20, 15)), list(BREEDS.values())[label])).max() < 6


@pytest.mark.once
@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow is the backend")
def test_reading_needs_no_tensorflow(prepared, child):
    code = (
        "import sys; from pathlib import Path\n"
        "from keras_dogs import backends; backends.select()\n"
        "from keras_dogs.data.datasets.stanford_dogs import read_prepared\n"
        f"assert len(read_prepared(Path({str(prepared)!r})).train) == 240\n"
        "assert 'tensorflow' not in sys.modules"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


@pytest.mark.once
def test_archives_that_are_not_the_official_ones(tmp_path):
    """Their checksums are the builder's own; nothing is prepared from others."""
    write_archives(tmp_path)
    with pytest.raises(UserError, match="stanford_dogs could not be prepared.*images.tar, annotation.tar, lists.tar"):
        load_dataset("stanford_dogs", data_dir=tmp_path)
    assert not stanford_dogs.is_prepared(tmp_path)


@pytest.mark.once
def test_two_processes_prepare_it_once(tmp_path, monkeypatch):
    """The second one waits for the first, and finds it prepared."""
    prepared = []
    monkeypatch.setattr(stanford_dogs, "is_prepared", lambda data_dir: bool(prepared))
    monkeypatch.setattr(stanford_dogs, "read_prepared", lambda data_dir: data_dir)

    def prepare(data_dir):
        assert not prepared
        time.sleep(0.2)  # so that the other one begins meanwhile
        prepared.append(data_dir)

    monkeypatch.setattr(stanford_dogs, "_prepare_in_child", prepare)
    write_archives(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        given = [pool.submit(stanford_dogs.load_stanford_dogs, tmp_path) for _ in range(2)]
        assert [each.result() for each in given] == [tmp_path] * 2
    assert prepared == [tmp_path]


def test_missing_data_dir():
    with pytest.raises(UserError, match="data_dir nowhere: no such folder"):
        load_dataset("stanford_dogs", data_dir="nowhere")
