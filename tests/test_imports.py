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


@pytest.mark.parametrize("room", ["comparison.running", "exporting.exporting", "checking.config", "serving.config"])
def test_what_leaves_the_work_to_children_loads_no_keras(room, child):
    """A comparison and an export wait for processes of their own; their words appear at once."""
    code = f"import sys, keras_dogs.{room}; assert not {{'keras', 'jax', 'torch', 'tensorflow'}} & set(sys.modules)"
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


@pytest.mark.once
def test_every_public_name_is_there(child):
    code = (
        "import keras_dogs\n"
        "for name in keras_dogs.__all__: getattr(keras_dogs, name)\n"
        "assert set(dir(keras_dogs)) == set(keras_dogs.__all__)\n"
        "try: keras_dogs.nonsense\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('nonsense was found')"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


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
@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow is the backend")
def test_commands_run_without_tensorflow(child, run_folder, dogs, tmp_path):
    code = (
        "import sys\n"
        f"sys.argv = ['train', '--dataset', {str(dogs)!r}, '--output', {str(tmp_path / 'run')!r}, '--epochs', '1']\n"
        "from keras_dogs.train import main\n"
        "assert main() == 0\n"
        "assert 'tensorflow' not in sys.modules and 'tensorflow_text' not in sys.modules"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


@pytest.mark.once
@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow is the backend")
def test_builders_keep_an_imported_tensorflow_off_the_gpu(child):
    """In user code, where nothing blocks it, KerasHub may import TensorFlow; it then sees no GPU."""
    code = (
        "import keras_dogs, sys\n"
        "keras_dogs.build_vit('vit_nano', num_classes=3)\n"
        "tensorflow = sys.modules.get('tensorflow')\n"
        "assert tensorflow is None or tensorflow.config.get_visible_devices('GPU') == []"
    )
    finished = child(["-c", code])
    assert finished.returncode == 0, finished.stderr


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
