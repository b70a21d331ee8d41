"""
The trace that a request belongs to, in the headers ``traceparent`` and ``tracestate`` of W3C's recommendation
Trace Context (level 1, 23 November 2021).

What cannot be read is as if it were not there: a client's mistake in a header for observers never fails its
request (section 4.3 of the recommendation).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gatewayd.messages.headers import Headers
from gatewayd.values import value

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TRACE_HEADERS: Final = frozenset({TRACEPARENT, TRACESTATE})

SAMPLED: Final = 1

# Version 00 has four fields; a later one may have more behind them, and these are the same.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER: Final = re.compile(
    r"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
# What everybody has to pass on at least, and nobody has to pass on more (section 3.3.1.5).
_MOST_MEMBERS: Final = 32
_LONGEST_STATE: Final = 512


@value
class TraceContext:
    """
    A place in a trace: the span ``span_id`` of the trace ``trace_id``, whose children follow.

    ``sampled`` says that whoever began the trace keeps it. ``state`` is the text of ``tracestate``, which is
    passed on as it came.
    """

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""


def context_of(headers: Iterable[tuple[str, str]]) -> TraceContext | None:
    """The place in a trace that a request's headers name; None if they name none that can be read."""
    parents: list[str] = []
    states: list[str] = []
    for name, text in headers:
        if name == TRACEPARENT:
            parents.append(text)
        elif name == TRACESTATE:
            states.append(text)
    if len(parents) != 1:
        return None
    found = _TRACEPARENT.fullmatch(parents[0])
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    context = TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & SAMPLED))
    if not context.trace_id or not context.span_id:
        return None
    if not states:
        return context
    return TraceContext(context.trace_id, context.span_id, context.sampled, _state_of(states))


def headers_of(context: TraceContext) -> Headers:
    """The headers that name ``context`` to whoever is called from there."""
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{'01' if context.sampled else '00'}"
    if not context.state:
        return ((TRACEPARENT, parent),)
    return (TRACEPARENT, parent), (TRACESTATE, context.state)


def without_context(headers: Headers) -> Headers:
    """The headers without those that name a place in a trace."""
    for name, _ in headers:
        if name in TRACE_HEADERS:
            return tuple(header for header in headers if header[0] not in TRACE_HEADERS)
    return headers


def _state_of(states: list[str]) -> str:
    """
    The members of all lines, as one; nothing if one of them is none, or there are more than may be.

    Of a text that is too long, the members at its end are left out: the youngest are in front.
    """
    members = [member for line in states for part in line.split(",") if (member := part.strip(" \t"))]
    if len(members) > _MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    while members and sum(map(len, members)) + len(members) - 1 > _LONGEST_STATE:
        members.pop()
    return ",".join(members)
