"""Check that no page of a built site loads a script, style, picture or frame of another host.

`python scripts/check_site.py SITE`; what the scripts of the theme do is not looked at.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

# What a browser fetches without a click.
_FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
_NOT_FETCHED = ("canonical", "next", "prev", "alternate")
_IN_STYLES = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)")


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.asked = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        address = given.get(_FETCHED.get(tag, ""), "") or ""
        if re.match(r"(https?:)?//", address) and given.get("rel") not in _NOT_FETCHED:
            self.asked.append(address)


def main(site: Path) -> int:
    """Prints what pages ask other hosts for; returns the exit status."""
    found, pages = [], sorted(site.rglob("*.html"))
    for file in pages:
        page = _Page()
        page.feed(file.read_text())
        found += [f"{file.relative_to(site)}: {address}" for address in page.asked]
    for file in site.rglob("*.css"):
        found += [f"{file.relative_to(site)}: {address}" for address in _IN_STYLES.findall(file.read_text())]
    print("\n".join(found) or f"{len(pages)} pages, and no request to another host")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
