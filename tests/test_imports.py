import ast
import os
from pathlib import Path

import pytest
from conftest import BACKEND

import keras_dogs
from keras_dogs import backends


def test_importing_the_package_loads_no_keras(child):
    code = "import sys, keras_dogs; assert not {'keras', 'numpy', 'jax', 'torch', 'tensorflow'} & set(sys.modules)"
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


def test_what_leaves_the_work_to_children_loads_no_keras(child):
    """A comparison and an export wait for processes of their own; their words appear at once."""
    code = (
        "import importlib, sys\n"
        "for room in ('comparison.running', 'exporting.exporting', 'checking.config', 'serving.config'):\n"
        "    importlib.import_module(f'keras_dogs.{room}')\n"
        "    assert not {'keras', 'jax', 'torch', 'tensorflow'} & set(sys.modules), room"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


@pytest.mark.once
def test_every_public_name_is_there(child):
    """In user code, where nothing blocks TensorFlow, KerasHub may import it; on JAX and PyTorch it then sees no GPU."""
    code = (
        "import keras_dogs, sys\n"
        "keras_dogs.build_vit('vit_nano', num_classes=3)\n"
        "tensorflow = sys.modules.get('tensorflow')\n"
        f"assert {BACKEND == 'tensorflow'} or not tensorflow or not tensorflow.config.get_visible_devices('GPU')\n"
        "for name in keras_dogs.__all__: getattr(keras_dogs, name)\n"
        "assert set(dir(keras_dogs)) == set(keras_dogs.__all__)\n"
        "try: keras_dogs.nonsense\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('nonsense was found')"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


@pytest.mark.once
def test_commands_load_nothing_for_keras_alone(child, tmp_path):
    """What a command itself wants of it, such as figures, is there afterwards."""
    for package in backends._UNUSED:
        (tmp_path / f"{package}.py").write_text(f"print('{package} was imported')\n")
    code = (
        "import gc, sys\n"
        "from keras_dogs import backends\n"
        "backends.load()\n"
        "print('loaded')\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 100_000\n"
        "import keras, keras_hub, pandas\n"
    )
    finished = child(["-c", code], PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert finished.stdout.splitlines() == ["loaded", "pandas was imported"], finished.stdout + finished.stderr


@pytest.mark.once
def test_the_house_stays_one_to_live_in():
    """At most 16 modules at the top, 400 lines in a file and 50 in the body of a function, its docstring aside."""
    package = Path(keras_dogs.__file__).parent
    assert len(list(package.glob("*.py"))) <= 16
    for file in package.rglob("*.py"):
        text = file.read_text("utf-8")
        assert text.count("\n") <= 400, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[ast.get_docstring(node) is not None :]
                assert not body or body[-1].end_lineno - body[0].lineno < 50, f"{file}: {node.name}"
