"""Hooks of MkDocs: the README is the first page, and what lies outside `docs/` is linked to, or brought along."""

import re
import tomllib
from pathlib import Path

import nbconvert
import nbformat
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
_LINK = re.compile(r"(!?\[[^\]]*\]\()(?!https?:|#|mailto:)([^)#\s]+)([^)]*\))")


def on_files(files, config):
    """Adds the README, and the pictures that pages show from outside `docs/`."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text()))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        files = _with_notebook(files, config, notebook)
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {path for page in pages for path in map(_below_root(page.parent), _targets(page.read_text()))}
    for path in sorted(shown):
        if path.suffix in (".png", ".jpg", ".svg") and not path.is_relative_to(ROOT / "docs"):
            files.append(File.generated(config, _brought(path), abs_src_path=str(path)))
    return files


def _with_notebook(files, config, notebook: Path):
    """Puts a page in the place of a notebook, with its figures."""
    for file in [file for file in files if file.src_uri == f"notebooks/{notebook.name}"]:
        files.remove(file)
    text, resources = nbconvert.MarkdownExporter().from_notebook_node(nbformat.read(notebook, 4))
    text = re.sub(r"^\[!\[.*\n?", "", text, flags=re.MULTILINE)  # badges are pictures of other hosts
    address = f"{REPOSITORY}/blob/main/docs/notebooks/{notebook.name}"
    note = f"*This page is [a notebook]({address}); open it in Colab or Kaggle.*"
    text = text.replace("\n\n", f"\n\n{note}\n\n", 1)
    for name, content in resources["outputs"].items():
        files.append(File.generated(config, f"notebooks/{name}", content=content))
    files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Points the links of a page to where their targets are on the site, or in the repository."""
    if page.file.src_uri.startswith("notebooks/"):
        return markdown
    folder = ROOT if page.file.src_uri == "index.md" else ROOT / "docs"

    def point(found):
        path = _below_root(folder)(found[2])
        if path.suffix == ".ipynb":
            path = path.with_suffix(".md")
        if path.is_relative_to(ROOT / "docs"):
            return f"{found[1]}{path.relative_to(ROOT / 'docs')}{found[3]}"
        if found[1].startswith("!"):
            return f"{found[1]}{_brought(path)}{found[3]}"
        if path == ROOT / "README.md":
            return f"{found[1]}index.md{found[3]}"
        return f"{found[1]}{REPOSITORY}/blob/main/{path.relative_to(ROOT)}{found[3]}"

    return _LINK.sub(point, markdown)


def _targets(text: str) -> list[str]:
    return [found[2] for found in _LINK.finditer(text)]


def _below_root(folder: Path):
    return lambda link: (folder / link).resolve()


def _brought(path: Path) -> str:
    return f"brought/{path.name}"
