"""Tracebacks as executors' authors want them: their own frames, with the source, and none of gatewayd's."""

from __future__ import annotations

import os
import traceback
from typing import Final

_OWN: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def user_traceback(error: BaseException) -> list[str]:
    """The lines of a traceback without the frames of gatewayd and of the import system, causes included."""
    whole = traceback.TracebackException.from_exception(error)
    links, seen = [whole], set()
    while links:
        link = links.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        link.stack = traceback.StackSummary.from_list(
            [frame for frame in link.stack if not frame.filename.startswith((_OWN, "<frozen"))]
        )
        links += [each for each in (link.__cause__, link.__context__, *(link.exceptions or ())) if each]
    return list(whole.format())
