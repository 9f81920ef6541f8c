import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import small_models
from conftest import BACKEND
from conftest import files_below
from conftest import losses

import keras_dogs
from keras_dogs import backends
from keras_dogs.data.config import DataConfig
from keras_dogs.errors import UserError
from keras_dogs.evaluation.evaluating import evaluate_classifier
from keras_dogs.evaluation.scoring import score_logits
from keras_dogs.models import builders
from keras_dogs.runs.records import RunRecord
from keras_dogs.system.flags import Range
from keras_dogs.training import callbacks
from keras_dogs.training import config
from keras_dogs.training import fitting
from keras_dogs.training import job as jobs
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune


def config_for(dogs, output, **changes):
    defaults = dict(preset=small_models.preset("resnet"), data=DataConfig(dataset=str(dogs)), output=output)
    return TrainConfig(**{**defaults, "epochs": 2, "batch_size": 4, **changes})


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_run_folder_holds_what_the_contract_says(run_folder):
    assert files_below(run_folder) == [
        ".keras_dogs.json",
        "checkpoints",
        "checkpoints/last.keras",
        "history.csv",
        "model.keras",
        "predictions.npz",
        "record.json",
        "steps.csv",
    ]
    assert files_below(run_folder.parent)[0] == "run"  # and nothing was left beside it


def test_the_record(run_folder, dogs, tmp_path):
    record = RunRecord.load(run_folder / "record.json")
    assert record.backend == BACKEND and record.versions["keras"] == keras.__version__
    assert record.jit_compile is (BACKEND == "jax") and record.family == "resnet"
    assert (record.dataset.num_train, record.dataset.num_validation, record.dataset.num_test) == (15, 3, 9)
    assert record.dataset.num_classes == 3 and record.dataset.num_unreadable == 0
    assert record.config["data"]["dataset"] == str(dogs)
    assert record.config["learning_rate"] > 0 and record.config["augmentation"] == "light"
    assert record.test.num_pictures == 9 and record.validation.num_pictures == 3
    assert 0 < record.timings.first_step_s <= record.timings.train_s <= record.timings.total_s
    assert record.throughput.train_images_per_second > 0 and record.peak_memory_gib > 0.1
    (tmp_path / "record.json").write_text(record.to_json())
    assert RunRecord.load(tmp_path / "record.json") == record


def test_a_record_with_fields_of_a_later_version_is_read(run_folder, tmp_path):
    values = json.loads((run_folder / "record.json").read_text())
    values["something_new"] = 1
    values["test"]["something_new"] = 1
    (tmp_path / "record.json").write_text(json.dumps(values))
    assert RunRecord.load(tmp_path / "record.json") == RunRecord.load(run_folder / "record.json")


def test_a_record_of_a_later_schema_is_refused(run_folder, tmp_path):
    values = json.loads((run_folder / "record.json").read_text())
    (tmp_path / "record.json").write_text(json.dumps({**values, "schema_version": 99}))
    with pytest.raises(UserError, match="record.json: written by a later version of keras_dogs"):
        RunRecord.load(tmp_path / "record.json")
    del values["test"]  # which a later version may have moved
    (tmp_path / "record.json").write_text(json.dumps({**values, "schema_version": 99}))
    with pytest.raises(UserError, match="record.json: written by a later version of keras_dogs"):
        RunRecord.load(tmp_path / "record.json")


def test_tables(run_folder):
    steps, history = table(run_folder / "steps.csv"), table(run_folder / "history.csv")
    assert [row["step"] for row in steps] == [str(step) for step in range(1, 7)]
    assert [row["epoch"] for row in steps] == ["1"] * 3 + ["2"] * 3
    assert float(steps[0]["loss"]) == pytest.approx(np.log(3), abs=1e-5)  # the head starts at zero
    rates = [float(row["learning_rate"]) for row in steps]
    assert max(rates) <= 1e-3 + 1e-9 and rates[-1] < rates[2]
    assert [row["epoch"] for row in history] == ["1", "2"]
    mean = np.mean([float(row["loss"]) for row in steps[:3]])
    assert float(history[0]["train_loss"]) == pytest.approx(mean)


def test_scores_can_be_computed_from_the_predictions(run_folder):
    record = RunRecord.load(run_folder / "record.json")
    with np.load(run_folder / "predictions.npz") as saved:
        assert len(set(saved["names"].tolist())) == 9
        assert saved["logits"].dtype == np.float32 and saved["logits"].shape == (9, 3)
        assert saved["class_names"].tolist() == ["amberwick", "birchhound", "cloverjack"]
        assert score_logits(saved["logits"], saved["labels"]) == record.test


def test_the_saved_model_gives_the_saved_predictions(run_folder, dogs):
    classifier = keras_dogs.load_classifier(run_folder / "model.keras")
    dataset = keras_dogs.load_dataset(str(dogs))
    from keras_dogs.evaluation.evaluating import decode_for

    test = decode_for(classifier, dataset, "test", 0.0)
    with np.load(run_folder / "predictions.npz") as saved:
        np.testing.assert_allclose(classifier.predict(test.images[:], verbose=0), saved["logits"], atol=1e-4)


def test_same_seed_same_losses_other_seed_others(run_folder, dogs, tmp_path):
    fine_tune(config_for(dogs, tmp_path / "again", preset="resnet_nano"))
    assert losses(tmp_path / "again") == pytest.approx(losses(run_folder), abs=1e-5)
    fine_tune(config_for(dogs, tmp_path / "other", preset="resnet_nano", seed=1))
    assert losses(tmp_path / "other")[1:] != pytest.approx(losses(run_folder)[1:], abs=1e-3)


def test_the_best_epoch_is_the_one_that_is_kept(dogs, tmp_path):
    """A rate that destroys the weights after the second epoch must not reach the saved model."""
    given = dict(preset="resnet_nano", epochs=4, warmup_fraction=0.0, learning_rate=1e-2)
    run = fine_tune(config_for(dogs, tmp_path / "run", **given))
    history = table(run.folder / "history.csv")
    best = max(history, key=lambda row: (float(row["validation_top1_accuracy"]), -float(row["validation_loss"])))
    assert run.record.best_epoch == int(best["epoch"]) < 4, "the last would be kept by a run that does not choose"
    assert run.record.validation.loss == pytest.approx(float(best["validation_loss"]))
    classifier = keras_dogs.load_classifier(run.folder / "model.keras")
    dataset = keras_dogs.load_dataset(str(dogs))
    from keras_dogs.evaluation.evaluating import decode_for

    validation = decode_for(classifier, dataset, "validation", 0.0)
    logits = classifier.predict(validation.images[:], verbose=0)
    assert score_logits(logits, validation.labels).loss == pytest.approx(run.record.validation.loss, rel=1e-3)


def test_a_linear_probe_leaves_the_backbone_alone_and_learns(dogs, tmp_path):
    given = dict(preset="resnet_nano", linear_probe=True, epochs=30, learning_rate=1e-2)
    run = fine_tune(config_for(dogs, tmp_path / "run", **given))
    trained = keras_dogs.load_classifier(run.folder / "model.keras")
    start = keras_dogs.build_resnet("resnet_nano", num_classes=3)
    for before, after in zip(start.backbone.weights, trained.backbone.weights):
        assert np.array_equal(before, after)
    assert run.record.test.top1_accuracy > 0.7
    assert losses(run.folder)[-1] < 0.7 * losses(run.folder)[0]
    # The record's scores came from the whole model, with the probe's centring and scale folded in.
    validation = run.record.validation
    assert float(table(run.folder / "history.csv")[run.record.best_epoch - 1]["validation_loss"]) == validation.loss
    dataset = keras_dogs.load_dataset(str(dogs))
    from keras_dogs.evaluation.evaluating import decode_for

    canvases = decode_for(trained, dataset, "validation", 0.0)
    folded = score_logits(trained.predict(canvases.images[:], verbose=0), canvases.labels)
    assert folded.loss == pytest.approx(validation.loss, rel=1e-3)


def test_a_linear_probe_with_augmentation_freezes_too(dogs, tmp_path):
    given = dict(preset=small_models.preset("vit"), linear_probe=True, augmentation="light")
    run = fine_tune(config_for(dogs, tmp_path / "run", **given))
    trained = keras_dogs.load_classifier(run.folder / "model.keras")
    start = keras_dogs.build_vit(given["preset"], num_classes=3)
    for before, after in zip(start.backbone.weights, trained.backbone.weights):
        assert np.array_equal(before, after)
    assert np.abs(trained.get_layer("head").get_weights()[0]).max() > 0


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(dogs, tmp_path, policy):
    run = fine_tune(config_for(dogs, tmp_path / "run", dtype_policy=policy, epochs=1))
    assert run.record.dtype_policy == policy
    assert np.isfinite(losses(run.folder)).all()


def test_without_validation_the_last_epoch_is_kept(dogs, tmp_path):
    """And a batch may be larger than the split: an epoch is one step."""
    data = DataConfig(dataset=str(dogs), validation_fraction=0)
    run = fine_tune(config_for(dogs, tmp_path / "run", data=data, batch_size=64))
    assert run.record.validation is None and run.record.best_epoch == 2
    assert run.record.dataset.num_train == 18 and run.record.dataset.num_validation == 0
    assert len(losses(run.folder)) == 2


def test_a_loss_that_is_not_finite_stops_the_run(dogs, tmp_path, monkeypatch):
    monkeypatch.setitem(config._RANGES, "learning_rate", Range(0, 1e40))
    with pytest.raises(UserError, match=r"not finite at step \d+ \(learning rate .*lower learning_rate"):
        fine_tune(config_for(dogs, tmp_path / "run", learning_rate=1e30, global_clipnorm=0.0, epochs=20))
    assert files_below(tmp_path) == []


def test_what_cannot_fit_in_memory_is_refused_before_it_begins(dogs, tmp_path, monkeypatch):
    """The system would end the process without a word."""
    monkeypatch.setattr(backends, "free_device_bytes", lambda: 2**20)
    with pytest.raises(UserError, match=r"a step of 4 pictures needs at least 0\.0 GiB, but only 0\.0 GiB are free"):
        fine_tune(config_for(dogs, tmp_path / "run"))
    assert files_below(tmp_path) == []


def test_a_layer_that_turns_compilation_off_is_refused(dogs, tmp_path, monkeypatch):
    build = builders.build_classifier

    def with_rotation(*args, **kwargs):
        classifier = build(*args, **kwargs)
        classifier.get_layer("crop").supports_jit = False
        return classifier

    monkeypatch.setattr(jobs.builders, "build_classifier", with_rotation)
    with pytest.raises(UserError, match="crop turn compilation off"):
        fine_tune(config_for(dogs, tmp_path / "run"))
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("resnet_nano", "resnet_nano"),
        ("applications:resnet50:/some/where/file.weights.h5", "resnet50"),
        ("https://tfhub.dev/sayakpaul/vit_s16_fe/1", "vit_s16_fe"),
        ("gs://vit_models/augreg/S_16-lr_0.03.npz", "S_16-lr_0.03"),
        ("hf://google/vit-base-patch16-224", "vit-base-patch16-224"),
        ("weights/model.keras", "model"),
        ("kaggle://keras/vit/keras/vit_base_patch16_224_imagenet/2", "vit_base_patch16_224_imagenet"),
        ("weights/vit/", "vit"),
        ("C:\\weights\\vit", "vit"),
    ],
)
def test_a_run_is_named_after_its_preset(preset, name):
    assert jobs.default_name(TrainConfig(preset=preset)) == f"drawn_dogs-{name}-{BACKEND}"


@pytest.mark.parametrize(("dataset", "name"), [(".", "inside"), ("..", "outside"), ("./inside/../dogs/", "dogs")])
def test_a_run_is_named_after_its_folder_of_pictures(dataset, name, tmp_path, monkeypatch):
    (tmp_path / "outside" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outside" / "inside")
    assert jobs.default_name(TrainConfig(dataset=dataset)) == f"{name}-resnet_nano-{BACKEND}"


def test_config_is_plain_data(dogs, tmp_path):
    config = config_for(dogs, tmp_path)
    assert dataclasses.replace(config, seed=3).seed == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 4


def test_out_of_memory_is_one_line(dogs, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99999999999 bytes.\nMore of it")

    monkeypatch.setattr(fitting, "_run", fail)
    with pytest.raises(UserError, match="not enough memory for steps of 4 pictures .*lower batch_size, or") as raised:
        fine_tune(TrainConfig(data=DataConfig(dataset=str(dogs)), output=tmp_path / "run", batch_size=4))
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def test_steps_in_which_a_trace_was_made_do_not_count(monkeypatch):
    """Seconds of tracing are no seconds of steps; what was read together counts, or not, together."""
    now, traces = [0.0], [0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(callbacks.backends, "num_traces", lambda model: traces[0])
    log = callbacks.StepLog(lambda steps: keras.ops.zeros(len(steps)), lambda batch: batch)
    log.on_train_begin()
    log.on_epoch_begin(0)
    for step in range(12):
        now[0] += {0: 30.0, 5: 20.0}.get(step, 1.0)  # the first compiles, the sixth is traced
        traces[0] = int(step >= 5)
        log.on_train_batch_end(step, {"step_loss": 1.0})
    assert log.first_steps == [0, 5]
    assert (log.steady_step_seconds(), log.steady_steps_per_second()) == (1.0, 1.0)
    traces[0] = 2  # in the validation between two epochs
    log.on_epoch_begin(1)
    for step in range(3):
        now[0] += 1.0
        log.on_train_batch_end(step, {"step_loss": 1.0})
    assert log.first_steps == [0, 5] and len(log.step_seconds) == 15


def test_rates_are_asked_of_as_many_steps_each_time(monkeypatch):
    """However many are read together, or JAX would compile what a schedule does for each number of them."""
    now, asked = [0.0], []
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    log = callbacks.StepLog(
        lambda steps: asked.append(steps) or keras.ops.convert_to_tensor(0.5 * steps), lambda batch: batch
    )
    log.on_train_begin()
    log.on_epoch_begin(0)
    for step in range(30):
        now[0] += 0.01 * step  # slower and slower, so that fewer are read together
        log.on_train_batch_end(step, {"step_loss": 1.0})
    log.on_epoch_end(0)
    assert [row["learning_rate"] for row in log.rows] == [0.5 * step for step in range(30)]
    assert len(asked) > 3 and len({len(steps) for steps in asked}) == 1


def test_the_rate_of_predictions_is_of_whole_batches(monkeypatch):
    """Whether a model computes when it is called or when it is read, the first batch is not of the rate."""
    from keras_dogs.data.loaders import batches

    now = [0.0]
    monkeypatch.setattr(batches.time, "perf_counter", lambda: now[0])

    class Eager:
        def unread_outputs(self, batch):
            now[0] += 1.0
            return batch

    outputs, images_per_second = batches.predict_in_batches(Eager(), np.ones((12, 2), "float32"), 4)
    assert outputs.shape == (12, 2) and images_per_second == 4.0


def test_a_classifier_that_is_frozen_meanwhile_still_predicts():
    classifier = keras_dogs.build_classifier("resnet_nano", 3)
    images = np.random.default_rng(0).integers(0, 256, (4, 73, 73, 3), dtype="uint8")
    before = evaluate_classifier(classifier, images, np.arange(4) % 3, batch_size=4).logits
    classifier.backbone.trainable = False
    after = evaluate_classifier(classifier, images[:3], np.arange(3), batch_size=3).logits
    np.testing.assert_allclose(after, before[:3], atol=1e-5)


def test_no_pictures_are_no_score():
    classifier = keras_dogs.build_classifier("resnet_nano", 3)
    with pytest.raises(UserError, match="no pictures"):
        evaluate_classifier(classifier, np.zeros((0, 73, 73, 3), "uint8"), np.zeros(0, "int32"))
