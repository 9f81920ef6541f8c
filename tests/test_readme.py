"""Every command and every piece of code that the README and the pages of docs/ show is run, or at least understood."""

import inspect
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tyro
from conftest import files_below
from PIL import Image

import keras_dogs
from keras_dogs.checking.config import CheckConfig
from keras_dogs.comparison.config import CompareConfig
from keras_dogs.evaluation.config import EvaluateConfig
from keras_dogs.evaluation.config import PredictConfig
from keras_dogs.models.presets import PRESETS
from keras_dogs.serving.config import ServeConfig
from keras_dogs.training import sweep
from keras_dogs.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# In the order in which a reader comes to them; the commands of a page may need what those of one before it made.
WALKED = {
    name: (ROOT / "docs" / f"{name}.md").read_text()
    for name in ("backends", "data", "runs", "recipes", "evaluation", "comparison", "weights", "code", "serving")
}
PAGES = {"README": README, **WALKED}
SCALING = (ROOT / "docs" / "scaling.md").read_text()

# Made quick: the same commands on fewer pictures, for fewer epochs.
QUICKER = {"draw": "--train-pictures 4 --test-pictures 1", "train": "--epochs 1"}
# Run elsewhere: `test_describe`, `test_the_comparison_is_understood`, `test_what_is_served_is_understood`.
ELSEWHERE = ("describe", "compare", "serve")


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(*pages):
    """Each command line of the bash blocks of pages, all if none is named, split at `&&`."""
    found = (block for page in pages or PAGES.values() for block in blocks("bash", page))
    lines = (line for block in found for line in block.strip().splitlines())
    return [command.strip() for line in lines for command in line.split("&&")]


def test_the_readme_is_a_screen_and_a_half():
    """A table's row counts once, however long; what more there is to say has a page in docs/."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    assert len(README.splitlines()) <= 135 and len(text.split()) <= 1200


def test_the_two_commands_are_the_ones_that_checks_run():
    assert "pip install tox && tox -e jax,tf,torch" in README
    assert "pip install tox && tox -e jax,tf,torch" in (ROOT / ".ci" / "run").read_text()
    assert [command for command in commands() if command.startswith("pip")] == [
        'pip install ".[jax]"',
        "pip install tox",
        'pip install ".[jax,tensorflow,torch,stanford-dogs]"',
        'pip install ".[jax,stanford-dogs]"',
        'pip install ".[torch,serve]"',
    ]
    known = ("pip install ", "tox -e ", "python -m keras_dogs.", "KERAS_BACKEND=jax python -m keras_dogs.train")
    assert all(command.startswith(known) for command in commands()), "a command that no test knows"


def test_the_real_thing_is_understood():
    """Its data and weights cannot be had in a test; its flags are parsed and its presets are in the table."""
    shown = [shlex.split(command) for command in commands() if "--dataset stanford_dogs" in command]
    assert len(shown) == 3
    scored = tyro.cli(EvaluateConfig, args=shown.pop()[3:])
    assert scored.run in PRESETS
    for words in shown:
        config = tyro.cli(TrainConfig, args=words[4:])
        assert config.data.dataset == "stanford_dogs" and PRESETS[config.preset].source == "keras_hub"


def test_commands_on_pictures_of_the_readers_own_are_understood():
    """Their flags are parsed, and their presets are in the table; the pictures are the reader's."""
    kinds = {"check": CheckConfig, "train": TrainConfig, "predict": PredictConfig}
    lines = [line for page in PAGES.values() for block in blocks("sh", page) for line in block.strip().splitlines()]
    lines = [line for line in lines if line.startswith("python -m keras_dogs.")]
    assert {line.split()[2] for line in lines} == {f"keras_dogs.{name}" for name in kinds}
    for line in lines:
        name, *arguments = shlex.split(line.removeprefix("python -m keras_dogs."))
        config = tyro.cli(kinds[name], args=arguments)
        assert name != "train" or config.preset in PRESETS


@pytest.mark.once
def test_a_reader_who_types_every_command(command, tmp_path, monkeypatch):
    """From drawing the pictures to the exported file, line by line, page by page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "_rates_to_try", lambda config: [1e-3])  # `tests/test_recipes.py` tries three
    lines = [line for line in dict.fromkeys(commands()) if line.startswith("python -m keras_dogs.")]
    for line in lines:
        shown, _, file = line.partition(" > ")
        name, *arguments = shlex.split(shown.removeprefix("python -m keras_dogs."))
        if name in ELSEWHERE or "stanford_dogs" in arguments:
            continue
        quicker = "" if {"--resume", "--print-config", "--config"} & set(arguments) else QUICKER.get(name, "")
        quicker += " --epochs 1" if "--config" in arguments else ""
        status, out, err = command(name, *arguments, *shlex.split(quicker))
        assert status == 0, f"{line}: {err}"
        assert name != "predict" or "amberwick" in (out or Path("answers.csv").read_text())
        if file:
            Path(file).write_text(out)
    files = set(files_below(tmp_path))
    assert {"dogs", "check/report.html", "runs/mine/record.json", "runs/swept/record.json", "vit.toml"} <= files
    assert {"runs/other_seed/record.json", "evaluation/report.html", "answers.csv", "exported/predict.py"} <= files


@pytest.mark.once
def test_the_comparison_is_understood():
    """`tests/test_compare.py` runs a smaller one."""
    lines = {command for command in commands() if "keras_dogs.compare" in command}
    (line,) = lines
    config = tyro.cli(CompareConfig, args=shlex.split(line)[3:])
    assert config.pair == "embedded" and config.seeds == (0, 1, 2)


@pytest.mark.once
def test_the_page_on_checking_has_the_measured_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import checking_docs

    page = (ROOT / "docs" / "checking.md").read_text()
    assert checking_docs.insert(page) == page
    assert all("keras_dogs." in line for block in blocks("bash", page) for line in block.strip().splitlines())


@pytest.mark.once
def test_the_page_on_libraries_has_the_measured_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import libraries

    page = (ROOT / "docs" / "libraries.md").read_text()
    assert libraries.insert(page) == page


@pytest.mark.once
def test_the_page_on_recipes_has_the_measured_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import small_folders

    assert small_folders.insert(WALKED["recipes"]) == WALKED["recipes"]


def test_describe(command):
    block = next(block for block in blocks("bash", WALKED["weights"]) if "keras_dogs.describe" in block)
    for line in block.strip().splitlines():
        status, out, _ = command(*shlex.split(line.removeprefix("python -m keras_dogs.")))
        assert status == 0 and "resnet_50_imagenet" in out


ATTENTION = (ROOT / "docs" / "attention.md").read_text()


@pytest.mark.parametrize(
    "code", [each for page in (README, WALKED["code"], ATTENTION) for each in blocks("python", page)]
)
def test_code(tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    exec(code, {})


def examples() -> dict[str, str]:
    """The example of each public name that has one, as code."""
    found = {}
    for name in keras_dogs.__all__:
        doc = inspect.getdoc(getattr(keras_dogs, name)) if name != "__version__" else ""
        if piece := re.search(r"```python\n(.*?)```", doc or "", re.DOTALL):
            found[name] = piece[1]
    return found


@pytest.mark.once
def test_every_public_function_is_annotated_and_has_an_example():
    functions = {name for name in keras_dogs.__all__ if inspect.isfunction(getattr(keras_dogs, name))}
    assert functions <= examples().keys()
    for name in functions:
        signature = inspect.signature(getattr(keras_dogs, name))
        assert all(each.annotation is not each.empty for each in signature.parameters.values()), name
        assert signature.return_annotation is not signature.empty, name


@pytest.mark.once
def test_examples_of_docstrings_run(tmp_path, monkeypatch, dogs):
    monkeypatch.chdir(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 80, 80, 3), "uint8")
    Image.fromarray(pictures[0]).save("dog.png")
    shutil.copytree(dogs, "dogs")
    known = {
        "keras_dogs": keras_dogs,
        "pictures": pictures,
        "labels": np.arange(4),
        "vit": keras_dogs.build_vit("vit_nano", num_classes=4, augmentation="none"),
        "resnet": keras_dogs.build_resnet("resnet_nano", num_classes=4, augmentation="none"),
    }
    for name, code in examples().items():
        try:
            exec(code, {**known, "classifier": known["resnet"]})
        except Exception as error:
            raise AssertionError(f"the example of {name} fails: {error!r}") from error


@pytest.mark.once
def test_the_figures_are_those_of_the_result_files(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme_table

    assert readme_table.insert(README) == README


@pytest.mark.once
def test_the_curves_are_as_near_as_is_said():
    """What the caption says is the measured difference, rounded up."""
    said = re.search(
        r"ViT stay within (\S+) of each other over ten steps and (\S+) over thirty, those of the ResNet within (\S+) "
        r"and (\S+)\.\*",
        " ".join(README.split()),
    )
    (file,) = (ROOT / "benchmarks" / "results").glob("same_curve-*.json")
    apart = json.loads(file.read_text())["apart"]
    measured = [
        max(row[over] for row in apart if row["model"] == model)
        for model in ("ViT-Ti/16", "ResNet-18")
        for over in ("first_10_steps", "all_steps")
    ]
    assert all(found <= float(text) <= 1.5 * found for text, found in zip(said.groups(), measured)), measured
    assert max(measured[::2]) <= 1e-3 and max(measured[1::2]) <= 2e-2, "the backends are not the same"


@pytest.mark.once
def test_the_page_of_results_is_of_the_result_files(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results_docs

    text = (ROOT / "docs" / "results.md").read_text()
    assert text == results_docs.render()
    assert all((ROOT / "docs" / file).is_file() for file in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text))


@pytest.mark.once
def test_the_page_of_statistics_is_of_its_result_file(monkeypatch):
    """And it holds what it promises: intervals cover at least 93 %, verdicts are wrong in at most 5 %."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import statistical_claims

    (file,) = (ROOT / "benchmarks" / "results").glob("statistical_claims-*.json")
    result = json.loads(file.read_text())
    assert (ROOT / "docs" / "statistics.md").read_text() == statistical_claims.render(result["rows"], result["repeats"])
    for row in result["rows"]:
        if row["what"] == "coverage":
            assert min(row[name] for name in row if name.startswith(("share", "difference"))) >= 0.93, row
        else:
            assert max(row["models"], row["backends"]) <= 0.05, row


@pytest.mark.once
def test_the_table_of_exports_is_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import exports

    page = (ROOT / "docs" / "export.md").read_text()
    assert exports.insert(page) == page


@pytest.mark.once
def test_the_page_of_serving_is_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import serving_docs

    page = (ROOT / "docs" / "serving.md").read_text()
    assert serving_docs.insert(page) == page


@pytest.mark.once
def test_the_page_of_scaling_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scaling_docs

    assert scaling_docs.insert(SCALING) == SCALING


@pytest.mark.once
def test_the_commands_of_scaling_are_understood():
    """`tests/test_devices.py` starts such processes; here the flags are parsed, of other hosts', too."""
    lines = [line for block in blocks("bash", SCALING) + blocks("sh", SCALING) for line in block.splitlines()]
    lines = [line for line in lines if "keras_dogs.train" in line or "local_processes.py" in line]
    assert len(lines) >= 8
    for line in lines:
        words = [word for word in shlex.split(line.replace("'", "")) if word != "..."]
        first = next(place for place, word in enumerate(words) if word.endswith(("keras_dogs.train", "processes.py")))
        flags = words[first + 1 :]
        tyro.cli(TrainConfig, args=flags[1:] if words[first].endswith(".py") else flags)


@pytest.mark.once
def test_what_is_served_is_understood():
    """The flags are parsed; `tests/test_serving.py` runs the command."""
    pages = [WALKED["serving"]]
    shown = {line for page in pages for line in re.findall(r"python -m keras_dogs\.serve ([^`\n]+)", page)}
    assert len(shown) >= 2
    for line in shown:
        assert tyro.cli(ServeConfig, args=shlex.split(line)).runs


def test_the_tree_is_the_tree():
    """Every room and command is in the tree of docs/house.md, and nothing that is not there."""
    tree = blocks("text", (ROOT / "docs" / "house.md").read_text())[0]
    package = ROOT / "keras_dogs"
    for entry in sorted(package.iterdir()):
        if entry.name.startswith("__") or entry.name == "py.typed":
            continue
        name = f"{entry.name}/" if entry.is_dir() else entry.name
        assert name in tree, name
    of_package = tree.partition("docs/ ")[0]
    for name in re.findall(r"[\w/]+\.py", of_package):
        assert (package / name).is_file() or list(package.glob(f"*/{name}")), name


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md", ROOT / "CONTRIBUTING.md"]
)
def test_what_a_page_names_is_there(page):
    """Links to files of this repository, and files that the text names by their path."""
    text = page.read_text()
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for name in re.findall(r"`((?:keras_dogs|benchmarks|scripts|tests)/[\w/.]+\.py)`", text):
        assert (ROOT / name).is_file(), name
