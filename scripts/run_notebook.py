"""Execute the notebook of the docs and keep its outputs: `python scripts/run_notebook.py [--check]`.

The notebook is written as text, `docs/notebooks/vit_and_resnet.py` (jupytext); the `.ipynb` beside it is made here,
with small figures, and is what Colab and Kaggle open. With `--check` it is executed and left as it is, and must have
the same cells.
"""

import base64
import io
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

SOURCE = Path(__file__).parents[1] / "docs" / "notebooks" / "vit_and_resnet.py"
_NOISE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def main():
    """Runs every cell; an error in one ends the script."""
    notebook = jupytext.read(SOURCE)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": "."}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same at each run
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_small, cell.outputs) if output]
    nbformat.validate(notebook)
    kept = SOURCE.with_suffix(".ipynb")
    if "--check" not in sys.argv:
        nbformat.write(notebook, kept)
    elif [cell.source for cell in nbformat.read(kept, 4).cells] != [cell.source for cell in notebook.cells]:
        sys.exit(f"{kept}: is not of {SOURCE.name}; run python {sys.argv[0]}")


def _small(output):
    """Returns an output with its figure as a small palette PNG, without what only a terminal shows."""
    if output.output_type == "stream":
        output.text = _NOISE.sub("", output.text)
        return output if output.name == "stdout" else None
    data = output.get("data", {})
    if "image/png" not in data:
        return None if output.output_type == "execute_result" else output
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB").quantize(256)
    written = io.BytesIO()
    picture.save(written, "PNG", optimize=True)
    output.data = {"image/png": base64.b64encode(written.getvalue()).decode()}
    return output


if __name__ == "__main__":
    main()
