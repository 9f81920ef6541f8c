"""Writes `predict.py`: one program from picture file to names that needs the runtime, NumPy and Pillow alone."""

import ast
from pathlib import Path

from keras_dogs.data.datasets import naming
from keras_dogs.data.datasets import opening
from keras_dogs.evaluation import answers
from keras_dogs.exporting import answering
from keras_dogs.exporting.formats import Format

PROGRAM = "predict.py"
_RUNTIMES = Path(__file__).parent / "runtimes"


def program_of(row: Format) -> str:
    """Returns the text of the program: the very code that decodes pictures here, the runtime's, and a command line."""
    ours = (naming, opening, answers, answering)
    sources = [*(Path(module.__file__) for module in ours), _RUNTIMES / f"{row.name}.py"]
    imports, bodies = set(), []
    for source in sources:
        found, body = _take_apart(source.read_text("utf-8"))
        imports |= found
        bodies.append(body)
    return (
        f'"""Names the breeds in pictures: `python {PROGRAM} PICTURE...`. Written by keras_dogs.export.\n\n'
        f'Needs Python 3.11 and: pip install numpy pillow {row.packages}\n"""\n\n'
        + "\n".join(sorted(imports, key=lambda line: (line.startswith("from"), line)))
        + "\n\n"
        + "\n\n\n".join(bodies)
        + '\n\n\nif __name__ == "__main__":\n    sys.exit(main(open_model))\n'
    )


def _take_apart(source: str) -> tuple[set[str], str]:
    """Returns the imports of a module, less those of ours, and what follows the last of them."""
    tree = ast.parse(source)
    found = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    outside = (node for node in found if not (getattr(node, "module", None) or "").startswith("keras_dogs"))
    after = found[-1] if found else tree.body[0]  # its docstring
    body = source.split("\n")[after.end_lineno :]
    return {ast.unparse(node) for node in outside}, "\n".join(body).strip()
