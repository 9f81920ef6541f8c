"""`compare` with real children."""

import pytest
from conftest import BACKEND

from keras_dogs.runs.records import RunRecord


@pytest.mark.once
def test_a_whole_comparison(command, dogs, tmp_path, monkeypatch, capsys):
    """Real children on this backend: one fails; the second time nothing that is finished is made again."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    given = ["--presets", "resnet_nano", tmp_path / "bad", "--backends", BACKEND, "--dataset", dogs]
    given += ["--train-flags=--batch-size 4", "--epochs", "1", "--output", tmp_path / "out"]
    status, out, err = command("compare", *given)
    assert (
        status == 1
        and "error: bad " in err
        and "config.json: damaged" in err
        and f"report: {tmp_path / 'out' / 'report.html'}" in out
    )
    records = sorted((tmp_path / "out" / "runs").glob("*/record.json"))
    assert [RunRecord.load(path).preset for path in records] == ["resnet_nano"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "1 of 2 runs are finished" in text and "Runs that are missing" in text and "config.json: damaged" in text
    assert f"KERAS_BACKEND={BACKEND} python -m keras_dogs.train --preset resnet_nano" in text

    before = [path.stat().st_mtime_ns for path in records]
    assert command("compare", *given)[0] == 1
    assert [path.stat().st_mtime_ns for path in records] == before


def test_every_fault_that_can_be_known_is_named_at_once_before_a_child_starts(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--presets", "resnet_nanoo", "vit_base", "--dataset", "nowhere", "--train-flags=--output there"]
    status, _, err = command("compare", *given)
    assert status == 2 and err.count("\n") == 1 and not list(tmp_path.iterdir())
    for fault in (
        "resnet_nanoo: unknown preset",
        "vit_base: unknown",
        "nowhere: no such folder",
        "--output: compare gives",
    ):
        assert fault in err, err
