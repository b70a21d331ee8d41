"""
Checks a built site: every link within it leads to a file and an anchor, and nothing is loaded from elsewhere.

    python docs/tools/check_site.py site

MkDocs checks what is written in Markdown; this sees what its theme made of it.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself. Links for people may lead anywhere.
_LOADED: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Document(HTMLParser):
    """``targets`` are what a page links to or loads, as (tag, URL); ``ids`` its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[tuple[str, str]] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by HTMLParser."""
        found = dict(attrs)
        self.ids.update(value for key in ("id", "name") if (value := found.get(key)))
        target = found.get("href" if tag == "a" else _LOADED.get(tag, ""))
        if target:
            self.targets.append((tag, target))


def problems(site: Path) -> list[str]:
    """Everything that is wrong, one line each."""
    documents = {path.resolve(): Document(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, document in documents.items():
        for tag, target in document.targets:
            problem = _problem(path, tag, target, documents)
            # The page for wrong addresses is served from everywhere: its links begin at the root.
            if problem and path.name != "404.html":
                found.append(f"{path.relative_to(site.resolve())}: {target}: {problem}")
    for sheet in site.rglob("*.css"):
        for target in re.findall(r"url\(['\"]?(https?:)?//([^)'\"]+)", sheet.read_text(encoding="utf-8")):
            found.append(f"{sheet}: loads //{target[1]}")
    return found


def _problem(page: Path, tag: str, target: str, documents: dict[Path, Document]) -> str | None:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return "loaded from elsewhere" if tag != "a" and parts.scheme != "data" else None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if path.is_dir():
        path /= "index.html"
    if not path.exists():
        return "there is no such file"
    if parts.fragment and path in documents and unquote(parts.fragment) not in documents[path].ids:
        return "there is no such anchor"
    return None


def main() -> int:
    """The exit code."""
    found = problems(Path(sys.argv[1]))
    for line in found:
        sys.stderr.write(line + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
