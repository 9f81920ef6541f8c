"""The table of recipes, how flags override it, and each row trained for real on a small model."""

import csv
import dataclasses
import importlib.machinery
import json
import shutil
import sys
import types

import numpy as np
import pytest
import small_models
from conftest import BACKEND
from conftest import files_below
from conftest import losses

import keras_dogs
from keras_dogs.data.config import DataConfig
from keras_dogs.data.loaders.batches import TrainingBatches
from keras_dogs.errors import UserError
from keras_dogs.evaluation.predictions import Predictions
from keras_dogs.evaluation.scoring import score_logits
from keras_dogs.models import families
from keras_dogs.runs.records import RunRecord
from keras_dogs.system.flags import Range
from keras_dogs.training import config
from keras_dogs.training import fine_tuning
from keras_dogs.training import fitting
from keras_dogs.training import job as jobs
from keras_dogs.training import recipes
from keras_dogs.training import sweep
from keras_dogs.training.config import TrainConfig
from keras_dogs.training.fine_tuning import fine_tune
from keras_dogs.training.recipes import RECIPES


def config_for(dogs, output, **changes):
    given = {"preset": small_models.preset("resnet"), "data": DataConfig(dataset=str(dogs)), "output": output}
    return TrainConfig(**{**given, "batch_size": 6, **changes})


@pytest.mark.once
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(dogs, tmp_path, name):
    """The record keeps the resolved recipe: what the row says, what the preset fills in, what a flag overrides."""
    row = RECIPES[name]
    accumulate = 2 if row.accumulate > 1 else None
    preset = small_models.preset("vit" if row.drop_path or row.layer_decay < 1 else "resnet")
    run = fine_tune(config_for(dogs, tmp_path / "run", recipe=name, preset=preset, epochs=1, accumulate=accumulate))
    config = run.record.config
    assert config["recipe"] == name and config["epochs"] == 1 and config["batch_size"] == 6
    assert config["optimizer"] == row.optimizer and config["label_smoothing"] == row.label_smoothing
    assert config["learning_rate"] > 0 and config["weight_decay"] is not None and config["augmentation"]
    assert np.isfinite(run.record.test.loss) and config["linear_probe"] is row.linear_probe
    is_probe = not (tmp_path / "run" / "checkpoints" / "last.keras").exists()
    assert is_probe is row.linear_probe


def test_rows_say_where_they_are_from():
    for name, row in RECIPES.items():
        assert row.source and row.expected, name


def test_flags_override_and_presets_fill_in():
    recipe = recipes.choose(TrainConfig(recipe="vit_adamw", preset="vit_nano", layer_decay=0.5, label_smoothing=0.0))
    assert (recipe.layer_decay, recipe.label_smoothing, recipe.drop_path) == (0.5, 0.0, 0.1)
    assert recipes.choose(TrainConfig(recipe="vit_adamw", preset="resnet_50_imagenet")).drop_path == 0
    assert recipes.choose(TrainConfig(linear_probe=True)).linear_probe
    assert recipes.name_of(TrainConfig()) == "adamw"


@pytest.mark.parametrize(
    ("preset", "family"),
    [("resnet_18", "resnet"), ("vit_tiny_patch16_224", "vit"), ("deit_tiny_distilled_patch16_224_imagenet", "deit")],
)
def test_settings_are_the_familys(preset, family):
    assert recipes.likely_family(preset) == family
    recipe = recipes.complete(recipes.choose(TrainConfig(preset=preset)), preset, family)
    wanted = families.FAMILIES[family].settings
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.weight_decay) == wanted


@pytest.mark.once
@pytest.mark.parametrize(
    ("preset", "family"),
    [
        ("/x/resnet_vs_vit/B_16.npz", "vit"),
        ("applications:resnet50:/vit/some.weights.h5", "resnet"),
        ("kaggle://keras/vit/keras/resnet_18_imagenet/2", "resnet"),
        ("/vit/resnet-18/model.safetensors", "resnet"),
    ],
)
def test_folders_above_do_not_name_the_family(preset, family):
    assert recipes.likely_family(preset) == family


@pytest.mark.once
def test_a_run_is_of_the_family_in_its_record(run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "my_vit")
    for part in ("", "model.keras", "checkpoints/last.keras"):
        assert recipes.likely_family(str(run / part)) == "resnet", part


@pytest.mark.once
def test_the_run_that_weights_come_from_is_not_overwritten(dogs, run_folder, tmp_path):
    run = shutil.copytree(run_folder, tmp_path / "run")
    with pytest.raises(UserError, match="holds the run that (--)?preset names"):
        fine_tune(config_for(dogs, run, preset=str(run), overwrite=True))
    assert files_below(run) == files_below(run_folder)


@pytest.mark.once
def test_a_sweep_keeps_all_runs_and_takes_the_best_on_validation(dogs, tmp_path, monkeypatch, capsys, command):
    scored = []
    evaluate = jobs.evaluate_classifier
    monkeypatch.setattr(jobs, "evaluate_classifier", lambda *given: scored.append(given[-1]) or evaluate(*given))
    given = dict(preset="resnet_nano", learning_rate="sweep")
    run = fine_tune(config_for(dogs, tmp_path / "run", **given, epochs=2))
    assert scored == ["Scoring test"], "the test split is scored once, whatever the number of rates"
    kept = tmp_path / "run" / "sweep"
    parts = {part.name: RunRecord.load(part / "record.json") for part in kept.iterdir()}
    assert sorted(map(float, parts)) == [0.00033, 0.001, 0.003]
    assert all(record.test is None for record in parts.values())
    best = max(parts.values(), key=lambda record: (record.validation.top1_accuracy, -record.validation.loss))
    record = RunRecord.load(tmp_path / "run" / "record.json")
    assert record == run.record and record.validation == best.validation and record.best_epoch == best.best_epoch
    assert [row["learning_rate"] for row in record.sweep] == [0.00033, 0.001, 0.003]
    others_s = sum(part.timings.total_s for part in parts.values() if part.timings != best.timings)
    assert record.timings.total_s > others_s + best.timings.total_s
    assert record.epoch_end_s[0] >= others_s + best.epoch_end_s[0], "the other rates came before"
    found = Predictions.load(tmp_path / "run")
    assert record.test == score_logits(found.logits, found.labels) and len(found.validation.names) == 3
    with pytest.raises(UserError, match="a rate of a sweep is scored on validation alone"):
        Predictions.load(kept / "0.001")
    assert keras_dogs.load_classifier(tmp_path / "run" / "model.keras") and not files_below(tmp_path)[0].startswith(".")
    is_at_edge = record.config["learning_rate"] != 0.001
    said = capsys.readouterr().err
    assert ("lies at the edge of those that were tried" in said) is is_at_edge and "nothing to resume" not in said
    status, _, err = command("train", "--resume", "--output", kept / "0.001")
    assert status == 2 and "is one rate of a sweep, finished and scored on validation alone" in " ".join(err.split())
    monkeypatch.setattr(sweep, "_rates_to_try", lambda config: [1e-3])
    again = config_for(dogs, tmp_path / "run", **given, epochs=1, overwrite=True)
    assert fine_tune(again).record.config["epochs"] == 1
    with pytest.raises(UserError, match="sweep: chooses on the validation split"):
        data = DataConfig(dataset=str(dogs), validation_fraction=0)
        fine_tune(config_for(dogs, tmp_path / "other", learning_rate="sweep", data=data))


@pytest.mark.once
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_float32_is_advised_to_those_who_train_in_less(policy):
    error = fitting._diverged(FloatingPointError("the loss is not finite"), [], [], policy)
    assert ("or use --dtype-policy float32" in str(error.args[0])) is (policy != "float32")


@pytest.mark.once
def test_a_rate_that_diverges_ranks_last(dogs, tmp_path, monkeypatch):
    """It is named, not tried again by --resume, and the best of the others is taken."""
    monkeypatch.setitem(config._RANGES, "learning_rate", Range(0, 1e40))
    monkeypatch.setattr(sweep, "_rates_to_try", lambda config: [1e30, 1e-3])
    given = dict(learning_rate="sweep", epochs=1, preset=small_models.preset("vit"))
    run = fine_tune(config_for(dogs, tmp_path / "run", **given))
    assert run.record.config["learning_rate"] == 1e-3 and run.record.test.num_pictures == 9
    (bad,) = (row for row in run.record.sweep if "error" in row)
    assert bad["learning_rate"] == 1e30 and "not finite" in bad["error"]
    assert [path.name for path in (tmp_path / "run" / "sweep").glob("*/")] == ["0.001"]
    (tmp_path / "run" / "record.json").unlink()
    begun = {**config_for(dogs, tmp_path / "run", **given).to_plain(), "fingerprint": "0" * 16, "backend": BACKEND}
    (tmp_path / "run" / "config.json").write_text(json.dumps(begun))
    with pytest.raises(UserError, match="are not those that .* was begun with"):
        fine_tune(config_for(dogs, tmp_path / "run", resume=True, **given))
    begun["fingerprint"] = None  # an earlier version began it
    (tmp_path / "run" / "config.json").write_text(json.dumps(begun))
    tried = []
    monkeypatch.setattr(fine_tuning, "_fit", lambda job, *rest: tried.append(job.config.learning_rate))
    again = fine_tune(config_for(dogs, tmp_path / "run", resume=True, **given)).record
    assert (again.test, again.sweep) == (run.record.test, run.record.sweep) and not tried
    part = RunRecord.load(tmp_path / "run" / "sweep" / "0.001" / "record.json")
    assert again.timings.total_s > part.timings.total_s and again.epoch_end_s[0] >= part.epoch_end_s[0] > 0
    monkeypatch.undo()
    monkeypatch.setitem(config._RANGES, "learning_rate", Range(0, 1e40))
    monkeypatch.setattr(sweep, "_rates_to_try", lambda config: [1e30, 1e35])
    with pytest.raises(UserError, match="every rate diverged"):
        fine_tune(config_for(dogs, tmp_path / "none", **given))
    assert not (tmp_path / "none").exists()


def test_patience_needs_a_validation_split(dogs, tmp_path):
    with pytest.raises(UserError, match="patience 2: dogs.* has no validation split"):
        data = DataConfig(dataset=str(dogs), validation_fraction=0)
        fine_tune(config_for(dogs, tmp_path / "run", patience=2, data=data))
    assert not (tmp_path / "run").exists()


@pytest.mark.once
def test_pictures_that_an_epoch_leaves_out_are_counted(dogs, tmp_path, capsys):
    fine_tune(config_for(dogs, tmp_path / "run", epochs=1, batch_size=4))
    assert "an epoch takes 12 of the 15 training images" in capsys.readouterr().err


@pytest.mark.once
def test_early_stopping(dogs, tmp_path):
    """A rate too small to change anything never gets better than the first epoch."""
    given = dict(preset=small_models.preset("vit"), learning_rate=1e-30, epochs=9, patience=2)
    run = fine_tune(config_for(dogs, tmp_path / "run", **given))
    with (tmp_path / "run" / "history.csv").open() as file:
        epochs = len(list(csv.DictReader(file)))
    assert epochs == run.record.best_epoch + 2 < 9


def test_a_probe_that_no_epoch_beats_is_kept(dogs, tmp_path, capsys):
    """Training begins where the probe ends; a rate too small to change anything is no better, which is said."""
    given = dict(preset="vit_nano", probe_first=True, learning_rate=1e-30, augmentation="none", patience=1)
    run = fine_tune(config_for(dogs, tmp_path / "run", **given))
    assert losses(run.folder)[0] < np.log(3) - 0.02, "the loss of a head of zeros is ln 3"
    assert files_below(run.folder / "checkpoints") == ["last.keras"]
    assert run.record.best_epoch == 0 and "the probe kept" in run.record.kept
    _, head, after = capsys.readouterr().err.partition("epoch   0/20  the head alone  validation loss")
    assert head and "best so far" not in after
    start = keras_dogs.build_vit("vit_nano", 3).backbone.weights
    kept = keras_dogs.load_classifier(run.folder / "model.keras")
    assert all(np.array_equal(a, b) for a, b in zip(start, kept.backbone.weights, strict=True))
    validation = Predictions.load(run.folder).validation
    assert run.record.validation.loss == pytest.approx(
        score_logits(validation.logits, validation.labels).loss, rel=1e-5
    )


def test_frozen_batch_norms_keep_everything(dogs, tmp_path):
    start = keras_dogs.build_resnet(small_models.preset("resnet"), 3).backbone
    for frozen in (True, False):
        run = fine_tune(config_for(dogs, tmp_path / str(frozen), freeze_batch_norm=frozen, epochs=1))
        trained = keras_dogs.load_classifier(run.folder / "model.keras").backbone
        pairs = [(a, b) for a, b in zip(start.weights, trained.weights) if "_bn/" in a.path]
        assert all(np.array_equal(a, b) for a, b in pairs) is frozen and len(pairs) > 10


def test_views_are_drawn_and_computed_once(dogs, tmp_path, capsys):
    run = fine_tune(config_for(dogs, tmp_path / "run", linear_probe=True, augmentation="light", views=3, epochs=2))
    said = capsys.readouterr().err
    assert "view 3 of 3" in said and "features/s" in said and "images/s" not in said
    with (run.folder / "steps.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * (3 * 15 // 6)
    start = keras_dogs.build_resnet(small_models.preset("resnet"), 3).backbone
    trained = keras_dogs.load_classifier(run.folder / "model.keras").backbone
    assert all(np.array_equal(a, b) for a, b in zip(start.weights, trained.weights))


def test_balanced_batches():
    labels = np.array([0] * 60 + [1] * 6 + [2] * 24, "int32")
    batches = TrainingBatches(np.arange(90), labels, 9, seed=0, balanced=True)
    seen = []
    for epoch in range(3):
        batches.start(epoch)
        drawn = np.concatenate([batches[index][0] for index in range(len(batches))])
        assert np.bincount(labels[drawn]).tolist() == [30, 30, 30]
        assert set(drawn[labels[drawn] == 1]) == set(range(60, 66)), "a small class is repeated whole"
        assert len(set(drawn[labels[drawn] == 0])) == 30, "a large one is not"
        seen.append(tuple(drawn))
    assert len(set(seen)) == 3


@pytest.mark.once
def test_balanced_training(dogs, tmp_path):
    assert fine_tune(config_for(dogs, tmp_path / "run", balanced=True, epochs=1)).record.config["balanced"]


def test_a_batch_that_cannot_be_split(dogs, tmp_path):
    with pytest.raises(UserError, match="accumulate 4: does not divide batch_size 6"):
        fine_tune(config_for(dogs, tmp_path / "run", accumulate=4))
    assert files_below(tmp_path) == []


@pytest.mark.once
def test_tensorboard_events(dogs, tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    fine_tune(config_for(dogs, tmp_path / "run", tensorboard=True, epochs=1))
    assert any((tmp_path / "run" / "tensorboard").iterdir())


class _Tracker(types.ModuleType):
    """As much of wandb as is used: what was begun, logged and ended."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.most = [], 10**6

    def init(self, **given):
        assert all(run.is_finished for run in self.runs), "wandb would give the run that is open"
        run = types.SimpleNamespace(given=given, steps=[], is_finished=False)

        def log(values, step):
            if len(run.steps) == self.most:
                raise RuntimeError("stopped here")
            run.steps.append(step)

        run.log = log
        run.finish = lambda exit_code: vars(run).update(is_finished=True, exit_code=exit_code)
        self.runs.append(run)
        return run


@pytest.fixture
def tracker(monkeypatch):
    made = _Tracker()
    made.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


@pytest.mark.once
def test_a_run_is_one_run_of_the_tracker(dogs, tmp_path, tracker):
    """Also where a probe comes first; and one that is resumed goes on in it."""
    config = config_for(dogs, tmp_path / "run", wandb="dogs", epochs=3, recipe="probe_then_finetune")
    tracker.most = 1
    with pytest.raises(RuntimeError, match="stopped here"):
        fine_tune(config)
    tracker.most = 10**6
    fine_tune(dataclasses.replace(config, resume=True))
    first, second = tracker.runs
    assert first.given["id"] == second.given["id"] and first.given["id"]
    assert first.steps + second.steps == sorted({*first.steps, *second.steps})
    assert (first.exit_code, second.exit_code) == (1, 0)


@pytest.mark.once
def test_each_rate_of_a_sweep_is_a_run_of_the_tracker(dogs, tmp_path, tracker):
    fine_tune(config_for(dogs, tmp_path / "run", wandb="dogs", epochs=1, learning_rate="sweep"))
    assert len({run.given["id"] for run in tracker.runs}) == len(tracker.runs) == 3
    assert all(run.is_finished and run.steps for run in tracker.runs)


def test_a_logger_that_is_missing_is_named_before_anything(dogs, tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for flag, value in (("tensorboard", True), ("wandb", "dogs")):
        with pytest.raises(UserError, match=f"{flag}: needs .*pip install"):
            fine_tune(config_for(dogs, tmp_path / "run", **{flag: value}))
    assert files_below(tmp_path) == []


def test_a_config_survives_json(tmp_path):
    config = TrainConfig(
        data=DataConfig(data_dir=tmp_path), output=tmp_path / "run", learning_rate=0.1, recipe="augreg"
    )
    assert TrainConfig.from_plain(json.loads(json.dumps(config.to_plain()))) == config
