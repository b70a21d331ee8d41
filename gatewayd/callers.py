"""Where the code is that calls gatewayd: files that it names are looked for beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType


def caller_folder() -> Path | None:
    """The folder of the file that calls gatewayd; None in an interactive session."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("gatewayd."):
        frame = frame.f_back
    file = None if frame is None else frame.f_globals.get("__file__")
    return None if file is None else Path(file).absolute().parent
