"""
What the engine has to know of documents, for either generation (docs/decisions/generations.md).

Everything else takes documents for bytes. All functions take and return a DataContentProto's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import attrs

from gatewayd.errors import GatewayError
from gatewayd.messages import documents as first
from gatewayd.messages.conditions import BadCondition, Condition, FirstFields, compile_condition
from gatewayd.messages.generations import Generation
from gatewayd.messages.rope import Content
from gatewayd.messages.second import documents as second
from gatewayd.messages.second.conditions import SecondFields


class DocumentFormat(Protocol):
    """One generation of documents. Every method but ``condition`` raises UnreadableDocuments."""

    @property
    def generation(self) -> Generation:
        """Which it is."""
        ...

    @property
    def in_graph_order(self) -> bool:
        """Whether the parts of a join are merged in the order of the graph, else in that of their arrival."""
        ...

    def condition(self, query: object) -> Condition:
        """The condition of a ``when``. Raises BadCondition."""
        ...

    def select(self, documents: Content, condition: Condition) -> Content:
        """The documents for which ``condition`` holds, in their order."""
        ...

    def merge(self, parts: Sequence[Content], sent: Sequence[Content]) -> Content:
        """The documents of all parts in one; ``sent`` has what each part's branch was sent."""
        ...

    def document_ids(self, documents: Content) -> list[str]:
        """The ids in order, ``""`` for a document without one."""
        ...

    def sort_like(self, documents: Content, ids: Sequence[str]) -> Content:
        """The documents in the order of their ids in ``ids``; unknown ones last, in their order."""
        ...


class _First:
    """Documents of docarray up to 0.21 (spec dispatch.md)."""

    generation: Final = Generation.FIRST
    in_graph_order: Final = False

    def condition(self, query: object) -> Condition:
        return compile_condition(query, FirstFields())

    def select(self, documents: Content, condition: Condition) -> Content:
        return first.select(documents, condition)

    def merge(self, parts: Sequence[Content], sent: Sequence[Content]) -> Content:
        return first.merge(parts)

    def document_ids(self, documents: Content) -> list[str]:
        return first.document_ids(documents)

    def sort_like(self, documents: Content, ids: Sequence[str]) -> Content:
        return first.sort_like(documents, ids)


class _Second:
    """Documents of docarray 0.30 and later (spec 34/topology.md)."""

    generation: Final = Generation.SECOND
    in_graph_order: Final = True

    def condition(self, query: object) -> Condition:
        return compile_condition(query, SecondFields())

    def select(self, documents: Content, condition: Condition) -> Content:
        return second.select(documents, condition)

    def merge(self, parts: Sequence[Content], sent: Sequence[Content]) -> Content:
        return second.merge(parts, sent)

    def document_ids(self, documents: Content) -> list[str]:
        return second.document_ids(documents)

    def sort_like(self, documents: Content, ids: Sequence[str]) -> Content:
        return second.sort_like(documents, ids)


FIRST: Final[DocumentFormat] = _First()
SECOND: Final[DocumentFormat] = _Second()
_FORMATS: Final = (FIRST, SECOND)


def format_of(generation: Generation | None) -> DocumentFormat:
    """The format of a Flow; the first while no executor has told its generation."""
    return SECOND if generation is Generation.SECOND else FIRST


class UnfitCondition(GatewayError):
    """The documents of the Flow do not have the fields that a ``when`` asks for."""

    def __init__(self, executor: str, generation: Generation, reason: str) -> None:
        self.executor = executor
        super().__init__(
            f"executor {executor}: when: {reason} (in documents of generation {generation.value}, which the "
            "executors of this Flow have)"
        )


@attrs.frozen(eq=False)
class When:
    """
    The ``when`` of an executor, for either generation: which one it is, executors tell later.

    Raises BadCondition if the query is right for none.
    """

    executor: str
    query: object
    _compiled: Mapping[Generation, Condition | str] = attrs.field(init=False)

    @_compiled.default
    def _compile(self) -> Mapping[Generation, Condition | str]:
        check_condition(self.query)
        found: dict[Generation, Condition | str] = {}
        for each in _FORMATS:
            try:
                found[each.generation] = each.condition(self.query)
            except BadCondition as error:
                found[each.generation] = str(error)
        return found

    def condition(self, documents: DocumentFormat) -> Condition:
        """The predicate of documents in this format. Raises UnfitCondition."""
        found = self._compiled[documents.generation]
        if isinstance(found, str):
            raise UnfitCondition(self.executor, documents.generation, found)
        return found


def check_condition(query: object, generation: Generation | None = None) -> None:
    """Raises BadCondition if ``query`` is none for documents of this generation; None: of any."""
    # The second generation takes any field: what it refuses is wrong in the first, too.
    format_of(generation or Generation.SECOND).condition(query)
