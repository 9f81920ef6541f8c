"""A name that Keras does not promise is taken away: a run still ends, and one line names what is missing."""

import ast
from pathlib import Path

import pytest

import keras_dogs
from keras_dogs.backends import keras_inside
from keras_dogs.data.config import DataConfig
from keras_dogs.training.config import TrainConfig

PACKAGE = Path(keras_dogs.__file__).parent
PRESETS = ("resnet_nano", "vit_nano")


class Recording(dict):
    """The table, and which of its rows somebody asked for."""

    asked: set = set()

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)


def run(dogs, output, preset):
    data = DataConfig(dataset=str(dogs))
    config = TrainConfig(preset=preset, data=data, output=output, epochs=1, batch_size=4, ema=0.9)
    return keras_dogs.fine_tune(config).record


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
def test_each_name_removed(dogs, tmp_path, monkeypatch, capsys, preset):
    monkeypatch.setattr(keras_inside, "_warned", set())
    monkeypatch.setattr(keras_inside, "NAMES", Recording(keras_inside.NAMES))
    Recording.asked = set()
    expected = run(dogs, tmp_path / "whole", preset)
    assert "any more" not in capsys.readouterr().err
    used = set(Recording.asked)
    assert {"layers", "moving_average", "load_json"} <= used
    for key in sorted(used):
        monkeypatch.setattr(keras_inside, "_removed", {key})
        monkeypatch.setattr(keras_inside, "_warned", set())
        record = run(dogs, tmp_path / key, preset)
        said = [line for line in capsys.readouterr().err.splitlines() if "any more" in line]
        assert len(said) == 1 and keras_inside.NAMES[key].attribute in said[0], (key, said)
        assert record.test.loss == pytest.approx(expected.test.loss, rel=0.2), key


def test_groups_need_what_is_gone(dogs, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_inside, "_removed", {"update_step"})
    monkeypatch.setattr(keras_inside, "_warned", set())
    config = TrainConfig(data=DataConfig(dataset=str(dogs)), output=tmp_path / "run", epochs=1, layer_decay=0.5)
    with pytest.raises(keras_dogs.UserError, match="layer_decay and unfreeze_every: do not work with this version"):
        keras_dogs.fine_tune(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_plain_walk_finds_all_layers(monkeypatch, preset):
    model = keras_dogs.build_classifier(preset, 3)
    expected = keras_inside.layers_of(model)
    monkeypatch.setattr(keras_inside, "_removed", {"layers"})
    assert {id(layer) for layer in expected} <= {id(layer) for layer in keras_inside.layers_of(model)}


# Of NumPy's and Python's own promise; and operators of ATen, by which a graph that was traced is read.
PROMISED = {"_replace", "_asdict", "_fields", "_exit"}
ATEN = {"_foreach_add_", "_foreach_mul", "_local_scalar_dense", "_schema", "_to_copy"}


@pytest.mark.once
@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_every_name_inside_is_in_the_table(file):
    """No private module is imported elsewhere, and no private attribute is read that neither we nor the table have."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    assert not [module for module in modules if ".src." in f"{module}." or "._" in module]
    stored = (ast.Name, ast.Attribute)
    ours = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    ours |= {
        getattr(node, "attr", getattr(node, "id", ""))
        for node in nodes
        if isinstance(node, stored) and isinstance(node.ctx, ast.Store)
    }
    known = {name.attribute for name in keras_inside.NAMES.values()} | PROMISED
    known |= ATEN if file.name == "graph_passes.py" else set()
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    assert {name for name in read if not name.startswith("__")} <= ours | known
