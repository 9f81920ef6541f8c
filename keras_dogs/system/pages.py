"""Markdown -> one HTML file that needs no other: figures inside, readable on a telephone, light and dark."""

import base64
import html
import re
from pathlib import Path

from keras_dogs.system import terminal

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
td img { max-width: none; }
img[src^="data:image/svg"] { width: min(100%, 40rem); }
pre { overflow-x: auto; padding: .5rem; border: 1px solid var(--line); }
"""


def to_html(content: str, folder: Path, title: str) -> str:
    """Returns the page.

    Args:
        content: str. Markdown; its pictures are files below `folder`. Where there is `x-dark.svg` beside `x.svg`, a
            dark page shows that.
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

    body = markdown.markdown(content, extensions=["tables", "fenced_code"])
    body = re.sub(r'<img alt="(?P<alt>[^"]*)" src="(?P<file>[^":]+)" />', embed, body)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(terminal.one_line(title))}</title>'
        f"<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _inline(file: Path) -> str:
    return f"data:image/{_KINDS[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"


def save_thumbnail(picture, file: Path, side: int) -> None:
    """Writes a picture as a small JPEG, and makes the folder for it.

    Args:
        picture: `PIL.Image.Image`, RGB; it is made small in place.
        file: Path.
        side: int. Of the square that it fits into, pixels.
    """
    picture.thumbnail((side, side))
    file.parent.mkdir(exist_ok=True)
    picture.save(file, quality=85)


class Markdown(str):
    """Text that is Markdown already; any other text is escaped where it enters a page."""


def text(content) -> Markdown:
    """Returns anything as Markdown that shows it as it is: names of classes, runs and files are no markup."""
    if isinstance(content, Markdown):
        return content
    escaped = html.escape(terminal.one_line(content), quote=False)
    # Underscores within words are no markup; a page of `resnet_nano` stays readable as a file, too.
    escaped = re.sub(r"[|`*\[\]\\~$]|(?<!\w)_|_(?!\w)", lambda found: f"&#{ord(found[0])};", escaped)
    # What begins a line of its own kind: a heading, an item of a list.
    begins = r"^(#|[=+-]+(?=\s|$)|\d+[.)](?=\s))"
    return Markdown(re.sub(begins, lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", escaped))


def code(content) -> Markdown:
    """Returns anything as a code span: a path, a command."""
    line = terminal.one_line(content)
    if not line or set(line) & set("|`\\"):  # which would end the span, or the cell that it is in
        return Markdown(f"<code>{text(line)}</code>")
    return Markdown(f"`{line}`")


def block(content: str) -> Markdown:
    """Returns lines as a block of code, to be copied."""
    lines = terminal.lines(content)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", lines)), default=0))
    return Markdown(f"{fence}\n{lines}\n{fence}\n")


def image(alt, file: str) -> Markdown:
    """Returns a picture of the page, whose file lies below the page's folder."""
    return Markdown(f"![{text(alt)}]({file})")


def table(header: list, rows: list[list]) -> Markdown:
    """Returns a table; cells that are not `Markdown` are escaped."""
    lines = [header, [Markdown("---")] * len(header), *rows]
    return Markdown("\n".join(f"| {' | '.join(map(text, line))} |" for line in lines) + "\n")
