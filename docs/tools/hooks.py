"""MkDocs: the decisions are part of the menu, whichever there are."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> None:
    """Add every page of docs/decisions to the last section."""
    folder = Path(config.docs_dir)
    (inside,) = (entry["Inside"] for entry in config.nav if isinstance(entry, dict) and "Inside" in entry)
    inside += sorted(str(page.relative_to(folder)) for page in (folder / "decisions").glob("*.md"))
