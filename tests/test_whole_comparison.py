"""`compare` with real children, on this backend."""

from conftest import BACKEND

from keras_dogs.runs.records import RunRecord


def test_a_whole_comparison(command, dogs, tmp_path, monkeypatch, capsys):
    """Real children on this backend: one fails; the second time nothing that is finished is made again."""
    told = ["--presets", "resnet_nano", "resnet_nanoo", "--backends", BACKEND, "--dataset", dogs]
    told += ["--train-flags=--batch-size 4", "--epochs", "1", "--output", tmp_path / "out"]
    status, out, err = command("compare", *told)
    assert status == 0 and "did you mean" in err and f"report: {tmp_path / 'out' / 'report.html'}" in out
    records = sorted((tmp_path / "out" / "runs").glob("*/record.json"))
    assert [RunRecord.load(path).preset for path in records] == ["resnet_nano"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "1 of 2 runs are finished" in text and "Runs that are missing" in text and "did you mean" in text
    assert f"KERAS_BACKEND={BACKEND} python -m keras_dogs.train --preset resnet_nano" in text

    before = [path.stat().st_mtime_ns for path in records]
    assert command("compare", *told)[0] == 0
    assert [path.stat().st_mtime_ns for path in records] == before
