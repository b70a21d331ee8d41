"""How often callers may ask: the rules, and how they are written."""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs

from gatewayd.config.kinds import TEXTS, Refused, ValueKind, choice, number_of, read_map, seconds

By = Literal["identity", "address", "all"]

EVERY_ENDPOINT: Final = "*"


@attrs.frozen
class RateRule:
    """
    What one caller may ask of ``endpoints`` together: so much in ``per_s`` seconds, and a burst at once.

    ``requests`` and ``documents`` are None for no limit. A pattern of endpoints ends with ``*``. ``by`` says
    who has a rate of its own: each identity (of callers that have none, each address), each address, or
    all callers together.
    """

    endpoints: tuple[str, ...] = (EVERY_ENDPOINT,)
    by: By = "identity"
    requests: float | None = None
    documents: float | None = None
    per_s: float = 1.0
    burst: float = 1.0
    burst_documents: float = 1.0


def _amount(value: Any) -> float:
    number = number_of(value)
    if number <= 0:
        raise Refused
    return number


def _burst(value: Any) -> float:
    number = number_of(value)
    if number < 1:
        raise Refused
    return number


def _endpoints(value: Any) -> tuple[str, ...]:
    patterns = tuple(TEXTS.read(value))
    for pattern in patterns:
        if not (pattern.startswith("/") or pattern == EVERY_ENDPOINT) or "*" in pattern[:-1]:
            raise Refused(found=pattern)
    if not patterns:
        raise Refused
    return patterns


_AMOUNT: Final = ValueKind("a number, more than 0", _amount)
_BURST: Final = ValueKind("a number from 1 up", _burst)
_KINDS: Final = {
    "requests": _AMOUNT,
    "documents": _AMOUNT,
    "per": seconds(zero=False),
    "burst": _BURST,
    "burst_documents": _BURST,
    "by": choice("identity", "address", "all"),
    "endpoints": ValueKind(
        "a list of endpoints such as /search, patterns such as /admin/*, or *", _endpoints
    ),
}


def _rule(value: Any) -> RateRule:
    found = read_map(value, _KINDS)
    if "requests" not in found and "documents" not in found:
        raise Refused(message="there is nothing that this rule limits: give requests, documents, or both")
    for amount, burst in (("requests", "burst"), ("documents", "burst_documents")):
        if amount in found:
            found.setdefault(burst, max(1.0, found[amount]))
        elif burst in found:
            raise Refused(inside=(burst,), message=f"it has no effect without {amount}")
    if "per" in found:
        found["per_s"] = found.pop("per")
    return RateRule(**found)


_RULE: Final = ValueKind("a map such as {requests: 100, per: 1, by: identity, endpoints: [/search]}", _rule)


def _rules(value: Any) -> tuple[RateRule, ...]:
    if not isinstance(value, list | tuple):
        raise Refused
    found = []
    for index, item in enumerate(value):
        try:
            found.append(_RULE.read(item))
        except Refused as refused:
            raise Refused(
                inside=(index, *refused.inside),
                found=item if refused.found is ... else refused.found,
                accepted=refused.accepted or _RULE.accepted,
                message=refused.message,
            ) from None
    return tuple(found)


RATES: Final = ValueKind(
    "a list of maps such as {requests: 100, per: 1, by: identity, endpoints: [/search]}",
    _rules,
    annotation="Sequence[Mapping[str, Any]]",
)
