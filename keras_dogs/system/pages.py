"""Markdown -> one HTML file that needs no other: figures inside, readable on a telephone, light and dark."""

import base64
import html
import re
from pathlib import Path

from keras_dogs.system import terminal

_KINDS = {".jpg": "jpeg", ".png": "png", ".svg": "svg+xml"}
# Sizes are powers of 1.2; numbers stand below each other; on a phone a row of a table is a card; paper has no menus.
_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2126; --soft: #5b6570; --line: #d9dee3; --wash: #f4f6f8;
        --accent: #b4470b; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e8ea; --soft: #9aa4ae; --line: #353b42; --wash: #1d2126; --accent: #f0955a; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; max-width: 60rem; margin: 0 auto;
       padding: 2.5rem 1.25rem 4rem; background: var(--paper); color: var(--ink); overflow-wrap: break-word; }
h1 { font-size: 2.07rem; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 1rem; }
h2 { font-size: 1.44rem; line-height: 1.25; letter-spacing: -.01em; margin: 3rem 0 .75rem; padding-top: .75rem;
     border-top: 1px solid var(--line); }
h3 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
a { color: var(--accent); text-underline-offset: .15em; }
blockquote { margin: 1rem 0 1.5rem; padding: 0 0 0 1rem; border-left: 4px solid var(--accent); font-size: 1.2rem;
             line-height: 1.4; }
blockquote p { margin: .4rem 0; }
nav { columns: 2; font-size: .9rem; margin: 1.5rem 0 0; padding: .9rem 1.1rem; background: var(--wash);
      border-radius: 6px; }
nav a { display: block; color: inherit; text-decoration: none; padding: .1rem 0; break-inside: avoid; }
nav a:hover { text-decoration: underline; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; font-size: .82rem; line-height: 1.3; vertical-align: bottom; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; }
td { vertical-align: middle; white-space: nowrap; }
th[style*="right"], td[style*="right"] { padding: .35rem .8rem; }
thead th:empty { padding: 0; border: 0; }
td:last-child { white-space: normal; min-width: 6rem; }
img { max-width: 100%; border-radius: 4px; vertical-align: middle; }
td img { max-width: none; }
img[src^="data:image/svg"] { width: min(100%, 46rem); }
code { font-size: .88em; background: var(--wash); padding: .1em .3em; border-radius: 3px; }
pre { overflow-x: auto; padding: .75rem 1rem; background: var(--wash); border-radius: 6px; line-height: 1.45; }
pre code { padding: 0; background: none; }
@media (max-width: 34rem) {
  body { padding-top: 1.5rem; font-size: 16px; }
  nav { columns: 1; }
  h1 { font-size: 1.6rem; }
  .table.cards thead { display: none; }
  .table.cards table, .table.cards tbody, .table.cards tr, .table.cards td { display: block; width: 100%; }
  .table.cards tr { padding: .5rem 0; border-bottom: 2px solid var(--line); }
  .table.cards td { display: flex; justify-content: space-between; gap: 1rem; padding: .1rem 0; border: 0;
                    white-space: normal; text-align: right; }
  .table.cards td::before { content: attr(data-label); color: var(--soft); text-align: left; flex: none;
                            max-width: 50%; }
}
@media print {
  :root { --paper: #ffffff; --ink: #000000; --soft: #444444; --line: #bbbbbb; --wash: #f4f4f4; --accent: #000000; }
  body { font-size: 10.5pt; max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
  .table, table, img, pre { break-inside: avoid; }
  .table { overflow: visible; }
  td, th { white-space: normal; padding-right: .5rem; }
  @page { margin: 18mm 16mm; }
}
"""
_CARDS_FROM = 4  # columns, from which a table is one of cards on a phone
_NUMBER = re.compile(r"[+\u2212-]?[\d,.]+(e[+-]?\d+)?( ?%| ?x| s)?( to [+\u2212-]?[\d,.]+( ?%)?)?( / [\d,]+)?|\u2013|")


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

    writer = markdown.Markdown(extensions=["tables", "fenced_code", "toc"])
    body = writer.convert(content)
    body = re.sub(r'<img alt="(?P<alt>[^"]*)" src="(?P<file>[^":]+)" />', embed, body)
    body = re.sub(r"<table>.*?</table>", _table_for_phones, body, flags=re.DOTALL)
    body = body.replace("<h2", f"{_contents(writer.toc_tokens)}<h2", 1)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(terminal.one_line(title))}</title>'
        f"<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _contents(tokens: list[dict]) -> str:
    """Returns the list of a page's sections, where there are several."""
    sections = [section for title in tokens for section in (title["children"] if title["level"] == 1 else [title])]
    links = "".join(f'<a href="#{section["id"]}">{section["name"]}</a>' for section in sections)
    return f'<nav aria-label="Contents">{links}</nav>\n' if len(sections) > 3 else ""


def _table_for_phones(found) -> str:
    """Returns a table that scrolls where it is too wide, and whose cells know the names of their columns."""
    names = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", found[0], re.DOTALL)
    names = [html.escape(html.unescape(re.sub(r"<[^>]+>", "", name)).strip()) for name in names]

    def label(row):
        cells = iter(names)
        return re.sub(r"<td", lambda _: f'<td data-label="{next(cells, "")}"', row[0])

    table = re.sub(r"<tr>.*?</tr>", label, found[0], flags=re.DOTALL)
    return f'<div class="table{" cards" if len(names) >= _CARDS_FROM else ""}">{table}</div>'


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
    """Returns a table, columns of numbers to the right; cells that are not `Markdown` are escaped."""
    columns = list(zip(*rows)) or [()] * len(header)
    are_numbers = [any(map(str, column)) and all(_NUMBER.fullmatch(str(cell)) for cell in column) for column in columns]
    rule = [Markdown("---:" if is_number else "---") for is_number in are_numbers]
    lines = [header, rule, *rows]
    return Markdown("\n".join(f"| {' | '.join(map(text, line))} |" for line in lines) + "\n")
