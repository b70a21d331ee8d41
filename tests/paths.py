"""Where things are in the checkout, for tests wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
GOLDEN: Final = ROOT / "tests" / "golden"
GOLDEN34: Final = ROOT / "tests" / "golden34"
