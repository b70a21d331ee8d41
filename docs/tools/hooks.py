"""MkDocs: the version is shown on every page, and the decisions are part of the menu, whichever there are."""

import re
from pathlib import Path
from typing import Any


def on_config(config: Any) -> None:
    """Show the version in head and foot, and add every page of docs/decisions to the last section."""
    folder = Path(config.docs_dir)
    source = (folder.parent / "gatewayd" / "_version.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', source, re.M)
    config.site_name = f"gatewayd {version}"
    config.copyright = f"gatewayd {version}, under the Apache License 2.0"
    (inside,) = (entry["Inside"] for entry in config.nav if isinstance(entry, dict) and "Inside" in entry)
    inside += sorted(str(page.relative_to(folder)) for page in (folder / "decisions").glob("*.md"))
