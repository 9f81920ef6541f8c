"""The cache of decoded pictures: made once, found again, never half made, never stale."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from keras_dogs.data.datasets import load_dataset
from keras_dogs.data.loaders import canvas_file
from keras_dogs.data.loaders import decoding
from keras_dogs.data.loaders.canvases import decode_split
from keras_dogs.data.loaders.canvases import load_canvases
from keras_dogs.errors import UserError
from keras_dogs.system import caches

pytestmark = pytest.mark.once

SPLITS = ("train", "validation", "test")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("KERAS_DOGS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "canvases"


@pytest.fixture
def own_dogs(tmp_path, dogs) -> Path:
    """A copy of `dogs` that may be changed."""
    return Path(shutil.copytree(dogs, tmp_path / "dogs"))


def load(folder, seed=0, size=16, wanted=SPLITS, **arguments):
    return load_canvases(load_dataset(str(folder), seed), wanted, size, **arguments)


@pytest.fixture
def decoded(monkeypatch) -> list:
    """The sizes of the pictures that were decoded."""
    seen, to_canvas = [], decoding.to_canvas
    monkeypatch.setattr(decoding, "to_canvas", lambda *arguments: (seen.append(1), to_canvas(*arguments))[1])
    return seen


def test_same_pictures_from_the_cache(cache, own_dogs, decoded):
    """In memory, decoded into the file, and mapped from it."""
    kept = [load(own_dogs, cache="memory"), load(own_dogs), load(own_dogs)]
    assert len(decoded) == 2 * 27
    for split, *others in zip(*kept):
        for other in others:
            assert split.names == other.names
            np.testing.assert_array_equal(split.labels, other.labels)
            np.testing.assert_array_equal(split.images[:], other.images[:])
    dataset = load_dataset(str(own_dogs))
    np.testing.assert_array_equal(kept[2][0].images[[3, 1]], decode_split(dataset.train, 16).images[[3, 1]])


def test_where_there_is_no_pwrite(cache, own_dogs, monkeypatch):
    """As on Windows: the workers write in turn."""
    monkeypatch.delattr(os, "pwrite", raising=False)
    (test,) = load(own_dogs, wanted=["test"])
    np.testing.assert_array_equal(test.images[:], decode_split(load_dataset(str(own_dogs)).test, 16).images)


def test_one_file_for_every_division(cache, own_dogs, decoded):
    """Another seed moves pictures between train and validation; nothing is decoded again for that."""
    first, second = load(own_dogs), load(own_dogs, seed=1)
    assert len(decoded) == 27 and first[1].names != second[1].names
    for split, canvas in zip(("train", "validation"), second):
        dataset = load_dataset(str(own_dogs), 1)
        np.testing.assert_array_equal(canvas.images[:], decode_split(getattr(dataset, split), 16).images)
    load(own_dogs, wanted=["test"])
    assert len(decoded) == 27 + 18


@pytest.mark.parametrize("change", ["content", "name", "size", "fit"])
def test_a_change_is_noticed(cache, own_dogs, decoded, change):
    load(own_dogs, wanted=["test"])
    file = next((own_dogs / "test").rglob("*.png"))
    if change == "content":
        Image.new("RGB", (16, 16), "red").save(file)
    elif change == "name":
        file.rename(file.with_name("zzz.png"))
    other = {"size": {"size": 20}, "fit": {"fit": "crop"}}.get(change, {})
    (test,) = load(own_dogs, wanted=["test"], **other)
    assert len(decoded) == 9 + 9
    if change == "content":
        assert (test.images[test.names.index(file.relative_to(own_dogs).as_posix())] == [255, 0, 0]).all()


def test_unreadable_pictures_stay_known(cache, own_dogs):
    bad = sorted((own_dogs / "train").rglob("*.png"))[4]
    bad.write_bytes(b"")
    for _ in range(2):
        train, validation, _ = load(own_dogs)
        (name, reason), *more = train.unreadable + validation.unreadable
        assert name == bad.relative_to(own_dogs).as_posix() and "empty" in reason and not more
        assert len(train) + len(validation) == 17 == len(train.images) + len(validation.images)
        assert name not in train.names + validation.names


def test_killed_while_decoding(cache, own_dogs, decoded):
    """What a killed process leaves is not taken for whole, and goes."""
    code = (
        "import os, sys\nfrom keras_dogs.data.datasets import load_dataset\n"
        "from keras_dogs.data.loaders import canvases, decoding\n"
        "seen, to_canvas = [], decoding.to_canvas\n"
        "def die(*arguments):\n    seen.append(1)\n    os._exit(9) if len(seen) > 5 else None\n"
        "    return to_canvas(*arguments)\n"
        "decoding.to_canvas = die\ncanvases.load_canvases(load_dataset(sys.argv[1]), ['test'], 16)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(own_dogs)]).returncode == 9
    assert list(cache.glob("*.partial")) and not list(cache.glob("*.json"))
    (test,) = load(own_dogs, wanted=["test"])
    assert len(decoded) == 9 and not list(cache.glob("*.partial"))
    np.testing.assert_array_equal(test.images[:], decode_split(load_dataset(str(own_dogs)).test, 16).images)


def test_a_damaged_cache_is_made_again(cache, own_dogs, decoded):
    load(own_dogs, wanted=["test"])
    (file,) = cache.glob("*.canvases")
    file.write_bytes(file.read_bytes()[:-1])
    load(own_dogs, wanted=["test"])
    next(cache.glob("*.json")).write_text('{"shape"')
    load(own_dogs, wanted=["test"])
    assert len(decoded) == 3 * 9


def test_a_flipped_bit_in_the_cache_is_noticed(cache, own_dogs, decoded):
    """It would change what is learned, and nobody would know."""
    (before,) = load(own_dogs, wanted=["test"])
    expected = before.images[:]
    (file,) = cache.glob("*.canvases")
    content = bytearray(file.read_bytes())
    content[3 * 16 * 16 * 3 + 100] ^= 4
    file.write_bytes(content)
    (after,) = load(own_dogs, wanted=["test"])
    np.testing.assert_array_equal(after.images[:3], expected[:3])
    with pytest.raises(UserError, match=r"\.canvases: row 3 is damaged on the disk"):
        after.images[2:5]
    (again,) = load(own_dogs, wanted=["test"])
    np.testing.assert_array_equal(again.images[:], expected)
    assert len(decoded) == 2 * 9


def test_two_processes_at_once(cache, own_dogs):
    """One decodes; the other waits, says so, and maps."""
    code = (
        "import sys, time\nfrom keras_dogs.data.datasets import load_dataset\n"
        "from keras_dogs.data.loaders import canvases, decoding\n"
        "to_canvas = decoding.to_canvas\n"
        "decoding.to_canvas = lambda *arguments: (time.sleep(0.2), to_canvas(*arguments))[1]\n"
        "(test,) = canvases.load_canvases(load_dataset(sys.argv[1]), ['test'], 16)\nprint(test.images[:].sum())"
    )
    command = [sys.executable, "-c", code, str(own_dogs)]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    (sum1, said1), (sum2, said2) = (process.communicate(timeout=100) for process in pair)
    assert sum1 == sum2 and int(sum1) > 0
    assert (said1 + said2).count("Decoding test pictures") == 1


def test_a_lock_that_nobody_holds_is_no_obstacle(cache, own_dogs, decoded, capsys):
    load(own_dogs, wanted=["test"])
    (description,) = cache.glob("*.json")
    description.unlink()
    lock = filelock.FileLock(description.with_suffix(".lock"))
    lock.acquire()
    lock.release()
    load(own_dogs, wanted=["test"])
    assert len(decoded) == 18 and "another process" not in capsys.readouterr().err


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses(cache, own_dogs, monkeypatch, capsys, reason):
    """The run goes on from memory, and nothing is left behind."""

    def refuse(*arguments):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(canvas_file, "_writer", lambda output: refuse)
    (test,) = load(own_dogs, wanted=["test"])
    np.testing.assert_array_equal(test.images[:], decode_split(load_dataset(str(own_dogs)).test, 16).images)
    said = capsys.readouterr().err
    assert os.strerror(reason) in said and "--cache-dir" in said and str(cache) in said
    assert not [file for file in cache.iterdir() if file.suffix != ".lock"]


def test_a_folder_that_cannot_be_made(tmp_path, own_dogs, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_DOGS_CACHE", str(tmp_path / "file"))
    assert len(load(own_dogs, wanted=["test"])[0]) == 9
    assert "Not a directory" in capsys.readouterr().err


def test_command(cache, own_dogs, command):
    """`python -m keras_dogs.cache` shows and removes."""
    assert command("cache")[1].endswith(": 0.0 MiB\n")
    load(own_dogs)
    status, out, _ = command("cache")
    assert status == 0 and re.search(
        r"canvases .* MiB  last used 20\d\d-.*  test pictures of dogs, 16 x 16, squash", out
    )
    assert len(out.splitlines()) == 3
    (file,) = (file for file in cache.glob("*.json") if "test pictures" in file.read_text())
    os.utime(file, (time.time() - 9 * 86_400,) * 2)
    os.utime(file.with_suffix(".canvases"), (time.time() - 9 * 86_400,) * 2)
    with filelock.FileLock(file.with_suffix(".lock")):
        out = command("cache", "--empty", "--older-than", "5")[1]
        assert "removed 0.0 MiB" in out and "in use, left there: test pictures" in out
    assert "removed 0.0 MiB" in command("cache", "--empty", "--older-than", "10")[1]
    command("cache", "--empty", "--older-than", "5")
    assert not file.exists() and len(list(cache.glob("*.canvases"))) == 1
    command("cache", "--empty")
    assert not list(cache.glob("*.canvases")) and not caches.entries()


def test_old_programs_are_told_from_new_ones(cache, command):
    """JAX keeps a compiled program, and beside it when it was last used."""
    programs = caches.folder("compiled")
    programs.mkdir(parents=True)
    names = {age: f"jit_step-{age:064x}" for age in (0, 9)}
    for age, name in names.items():
        for end, days in (("cache", 20), ("atime", age)):
            (programs / f"{name}-{end}").write_bytes(bytes(2**20))
            os.utime(programs / f"{name}-{end}", (time.time() - days * 86_400,) * 2)
    assert "removed 2.0 MiB" in command("cache", "--empty", "--older-than", "5")[1]
    assert {file.name for file in programs.iterdir()} == {f"{names[0]}-cache", f"{names[0]}-atime"}
    assert "programs: 1" in command("cache")[1]


@pytest.mark.once
def test_a_run_says_where(cache, own_dogs, tmp_path, command):
    """`--cache-dir` decides, and `--cache memory` keeps nothing; the record has both."""
    given = ["--dataset", own_dogs, "--epochs", "1", "--batch-size", "4", "--output", tmp_path / "run"]
    status, _, err = command("train", *given, "--cache-dir", tmp_path / "there", "--cache", "memory")
    assert status == 0, err
    assert not (tmp_path / "there" / "canvases").exists()
    status, _, err = command("train", *given, "--cache-dir", tmp_path / "there", "--overwrite")
    assert status == 0, err
    assert len(list((tmp_path / "there" / "canvases").glob("*.json"))) == 2
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["config"]["data"]["cache"] == "auto" and record["cache"].startswith("disk")
    (tmp_path / "file").write_text("")
    assert "not a folder" in command("train", *given, "--cache-dir", tmp_path / "file", "--overwrite")[2]


def test_what_may_pass_is_not_kept(cache, own_dogs, monkeypatch):
    """A picture that could not be read for want of a right or of memory is tried again."""
    opened, refused = Image.open, []

    def refuse(file, **named):
        if not refused:
            refused.append(file)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(file, **named)

    monkeypatch.setattr(Image, "open", refuse)
    (test,) = load(own_dogs, wanted=["test"])
    assert [reason for _, reason in test.unreadable] == ["[Errno 13] Permission denied"] and len(test) == 8
    (test,) = load(own_dogs, wanted=["test"])
    assert not test.unreadable and len(test) == 9
    assert {file.suffix for file in cache.iterdir()} == {".json", ".canvases"}


def test_a_cache_of_another_user_is_used(cache, own_dogs, decoded, monkeypatch):
    load(own_dogs, wanted=["test"])

    def refuse(*arguments):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "utime", refuse)
    load(own_dogs, wanted=["test"])
    assert len(decoded) == 9


def test_what_goes_while_it_is_listed(cache, own_dogs, command):
    """Other processes rename and remove."""
    load(own_dogs, wanted=["test"])
    (cache / "gone.partial").symlink_to(cache / "nowhere")
    status, out, err = command("cache")
    assert status == 0 and "test pictures" in out and not err
