"""No command touches a file that it did not make, whatever `--output` is."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from made_runs import make_run

from keras_dogs.errors import UserError
from keras_dogs.runs import artifacts
from keras_dogs.system import ownership
from keras_dogs.system.flags import Range
from keras_dogs.training import config

pytestmark = pytest.mark.once


def digest_of(folder: Path) -> dict[str, str]:
    """Each path below a folder and what is in it; a link is where it leads to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b"/"
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture
def work(tmp_path, monkeypatch, dogs, run_folder):
    """A working folder with things of the user's in every place where ours might go."""
    work = tmp_path / "work"
    for name in ("figures", "pictures", "runs", "logs", "checkpoints", "train", "test", "npz", "canvases", "compiled"):
        (work / "mine" / name).mkdir(parents=True)
        for file in ("accuracy.svg", "0.jpg", "last.keras", "step-1.npz", "notes.txt"):
            (work / "mine" / name / file).write_text(f"mine: {file}")
    for name in ("report.md", "report.html", "results.json", "record.json", "history.csv", "amberwick.png"):
        (work / "mine" / name).write_text(f"mine: {name}")
    (work / "mine" / ".lock").write_text("")  # an earlier version took a folder with this for a comparison
    (work / "empty").mkdir()
    (work / "file").write_text("mine")
    (work / "link").symlink_to(work / "mine")
    (work / "link_to_nothing").symlink_to(work / "nowhere")
    (work / ".new.partial").mkdir()
    (work / ".new.partial" / "notes.txt").write_text("mine")
    shutil.copytree(run_folder, work / "run")
    (work / "run" / "notes.txt").write_text("mine")
    make_run(work / "made")
    monkeypatch.chdir(work)
    return work


QUICK = ("--epochs", "1", "--batch-size", "4")
COMMANDS = {
    "train": lambda dogs, run: ("--dataset", dogs, *QUICK),
    "train --overwrite": lambda dogs, run: ("--dataset", dogs, "--overwrite", *QUICK),
    "train --resume": lambda dogs, run: ("--dataset", dogs, "--resume", *QUICK),
    "compare": lambda dogs, run: ("--from", run),
    "evaluate": lambda dogs, run: (run, "--saved"),
    "explain": lambda dogs, run: (run, sorted((dogs / "test" / "amberwick").iterdir())[0]),
    "draw": lambda dogs, run: ("--train-pictures", "1", "--test-pictures", "1"),
    "export": lambda dogs, run: (run, "--format", "keras", "--verify-pictures", "2"),
}
REFUSED = ("mine", ".", "file", "link", "link_to_nothing")


def run_command(command, what, dogs, run, output):
    name, *more = what.split()
    return command(name, *COMMANDS[what](dogs, run), *more, "--output", output)


@pytest.mark.parametrize("output", REFUSED)
@pytest.mark.parametrize("what", COMMANDS)
def test_what_is_not_ours_is_refused_before_anything(command, work, dogs, run_folder, what, output):
    before = digest_of(work)
    if what == "train --resume" and output in ("mine", "."):
        # A record.json that is no run's must not be taken for a finished run.
        (work / "mine" / "record.json").unlink()
        before = digest_of(work)
    status, _, err = run_command(command, what, dogs, run_folder, output)
    assert status == 2 and err.count("\n") == 1 and f"--output {output}" in err, err
    assert digest_of(work) == before


@pytest.mark.parametrize("what", [what for what in COMMANDS if what != "export"])
def test_a_new_and_an_empty_folder_are_taken(command, work, dogs, run_folder, what):
    """And nothing beside them is touched. `export` is covered by `test_exports.py`, which exports anyway."""
    before = digest_of(work)
    # Where it takes seconds, other tests have taken a new one.
    outputs = ["empty"] if what.startswith("train") else ["empty", "new"]
    for output in outputs:
        status, _, err = run_command(command, what, dogs, run_folder, output)
        assert status == 0, err
        assert ownership.kind_of(work / output) == what.split()[0] and not ownership.strangers(work / output)
    after = digest_of(work)
    assert {name: after.get(name) for name in before} == before
    added = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert added <= set(outputs)


def test_a_run_with_something_of_the_users_is_not_overwritten(command, work, dogs, run_folder):
    before = digest_of(work)
    status, _, err = run_command(command, "train --overwrite", dogs, run_folder, "run")
    assert status == 2 and "holds notes.txt, which keras_dogs did not make" in err
    assert digest_of(work) == before
    for what in ("compare", "evaluate", "explain", "draw", "export"):
        status, _, err = run_command(command, what, dogs, run_folder, "run")
        assert status == 2 and "--output run" in err, err
    assert digest_of(work) == before


def test_a_report_replaces_its_own_files_alone(command, work, dogs, run_folder):
    """The same comparison again, beside files of the user's; one with a name of ours is refused."""
    assert run_command(command, "compare", dogs, work / "made", "new")[0] == 0
    (work / "new" / "figures" / "mine.svg").write_text("mine")
    (work / "new" / "pictures").mkdir(exist_ok=True)
    (work / "new" / "pictures" / "dog.jpg").write_text("mine")
    (work / "new" / "notes.txt").write_text("mine")
    assert run_command(command, "compare", dogs, work / "made", "new")[0] == 0
    assert [path.relative_to(work / "new").as_posix() for path in ownership.strangers(work / "new")] == [
        "figures/mine.svg",
        "notes.txt",
        "pictures/dog.jpg",
    ]
    manifest = work / "new" / ownership.MANIFEST
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "files": [name for name in content["files"] if name != "report.md"]}))
    (work / "new" / "report.html").unlink()
    before = digest_of(work)
    status, _, err = run_command(command, "compare", dogs, work / "made", "new")
    assert status == 0 or "report.md: is not a file that keras_dogs made" in err, err
    assert digest_of(work)["new/report.md"] == before["new/report.md"]


def test_explanations_replace_their_own_alone(command, work, dogs, run_folder):
    assert run_command(command, "explain", dogs, run_folder, "new")[0] == 0
    (figure,) = (work / "new").glob("*.png")
    assert run_command(command, "explain", dogs, run_folder, "new")[0] == 0
    ownership.claim(work / "new", "explain", [])
    figure.write_text("mine")
    status, _, err = run_command(command, "explain", dogs, run_folder, "new")
    assert status == 2 and "is not a file that keras_dogs made" in err and figure.read_text() == "mine"


def test_a_run_that_was_finished_meanwhile_is_not_replaced(tmp_path):
    """By another process that chose the same free name."""
    run = make_run(tmp_path / "run")
    before = digest_of(run)
    with pytest.raises(UserError, match="another process has finished a run there"):
        with artifacts.run_folder(run, {"data": {}, "overwrite": False}, resume=False):
            pytest.fail("it was entered")
    assert digest_of(run) == before


def test_a_finished_run_behind_a_link_is_overwritten(command, work, dogs, run_folder):
    shutil.copytree(run_folder, work / "finished")
    (work / "to_finished").symlink_to(work / "finished")
    before = digest_of(work / "mine")
    status, _, err = run_command(command, "train --overwrite", dogs, run_folder, "to_finished")
    assert status == 0, err
    assert (work / "to_finished").is_symlink() and (work / "finished" / "record.json").is_file()
    assert digest_of(work / "mine") == before and not list(work.glob(".finished.retired"))


def test_names_that_look_like_patterns(tmp_path):
    """Browsers call a second download `dog[1].jpg`."""
    for name in ("dog[1].png", "a**b.png", "?.png"):
        (tmp_path / name).write_text("ours")
    ownership.claim(tmp_path, "explain", ["dog[1].png", "a**b.png", "gone**x.png"])
    assert [path.name for path in ownership.strangers(tmp_path)] == ["?.png"]
    ownership.check_replaceable(tmp_path, ["dog[1].png", "a**b.png"])


def test_a_comparison_of_an_earlier_version_is_reported_anew(command, work, dogs):
    assert run_command(command, "compare", dogs, work / "made", "new")[0] == 0
    (work / "new" / ownership.MANIFEST).unlink()
    (work / "new" / "pictures").mkdir(exist_ok=True)
    (work / "new" / "pictures" / "0.jpg").write_text("an earlier version's")
    status, _, err = run_command(command, "compare", dogs, work / "made", "new")
    assert status == 0, err


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path):
    for bad in ("../other.txt", "/etc/hostname", "", 3):
        (tmp_path / ownership.MANIFEST).write_text(
            json.dumps({"schema_version": 1, "made_by": "compare", "files": [bad]})
        )
        assert ownership.kind_of(tmp_path) is None and ownership.listed(tmp_path) == []


def test_emptying_a_cache_leaves_what_is_not_of_it(command, work, dogs):
    before = digest_of(work)
    status, _, err = command("train", "--dataset", dogs, "--cache-dir", "mine", "--output", "new", *QUICK)
    assert status == 0, err
    assert any((work / "mine" / "canvases").glob("*.canvases"))
    assert command("cache", "--cache-dir", "mine", "--empty")[0] == 0
    after = digest_of(work / "mine")
    assert {f"mine/{name}": content for name, content in after.items() if name != ".lock"} == {
        name: content for name, content in before.items() if name.startswith("mine/") and name != "mine/.lock"
    }


def test_a_run_that_comes_to_nothing_leaves_an_empty_folder_empty(command, work, dogs, monkeypatch):
    monkeypatch.setitem(config._RANGES, "learning_rate", Range(0, 1e40))
    before = digest_of(work)
    status, _, err = command("train", "--dataset", dogs, "--output", "empty", "--learning-rate", "1e30", *QUICK)
    assert status == 2 and "not finite" in err
    assert digest_of(work) == before
