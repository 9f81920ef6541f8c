"""Markdown -> one HTML file that needs no other: figures inside, readable on a telephone, light and dark."""

import base64
import html
import re
from pathlib import Path

_KINDS = {".jpg": "jpeg", ".png": "png", ".svg": "svg+xml"}
_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #222222; --line: #8886; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e6e6; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       background: var(--paper); color: var(--ink); overflow-wrap: break-word; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: middle; }
thead th:empty { padding: 0; border: 0; }
td { white-space: nowrap; }
td:last-child { white-space: normal; min-width: 6rem; }
img { max-width: 100%; border-radius: 4px; }
img[src^="data:image/svg"] { width: min(100%, 40rem); }
pre { overflow-x: auto; padding: .5rem; border: 1px solid var(--line); }
"""


def to_html(text: str, folder: Path, title: str) -> str:
    """Returns the page.

    Args:
        text: str. Markdown; its pictures are files below `folder`. Where there is `x-dark.svg` beside `x.svg`, a dark
            page shows that.
        folder: Path.
        title: str.
    """
    import markdown

    def embed(found):
        file = folder / found["file"]
        dark = file.with_name(f"{file.stem}-dark{file.suffix}")
        shown = f'<img alt="{found["alt"]}" src="{_inline(file)}" />'
        if not dark.is_file():
            return shown
        return f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_inline(dark)}" />{shown}</picture>'

    body = markdown.markdown(text, extensions=["tables", "fenced_code"])
    body = re.sub(r'<img alt="(?P<alt>[^"]*)" src="(?P<file>[^":]+)" />', embed, body)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _inline(file: Path) -> str:
    return f"data:image/{_KINDS[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"


def table(header: list[str], rows: list[list]) -> str:
    """Returns a Markdown table; a bar in a cell would end it, and names of classes and files are no HTML."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + "\n"


def _cell(content) -> str:
    return html.escape(str(content), quote=False).replace("|", "¦").replace("\n", " ")
