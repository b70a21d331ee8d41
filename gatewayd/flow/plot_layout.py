"""
Where the boxes and lines of a plotted Flow are: in layers, from the gateway to the answer.

A Deployment stands one layer behind the last of those it needs. Layers are columns, or rows of a vertical
layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from gatewayd.config import DeploymentConfig, FlowConfig
from gatewayd.config.graph import START

# Wide enough for any of the font's letters, on average, at 14 px.
_LETTER_PX: Final = 7.6
BOX_HEIGHT: Final = 52
# Between layers, and between the boxes of one.
_GAP: Final = 64
_SMALL_GAP: Final = 24
_MARGIN: Final = 24


@attrs.frozen
class Box:
    """One node: its lines of text and where its left upper corner is."""

    title: str
    detail: str
    kind: str
    x: float
    y: float
    width: float


Point = tuple[float, float]


@attrs.frozen
class Line:
    """A cubic Bézier curve with a tip at its end; ``floating`` where it leads to what floats."""

    points: tuple[Point, Point, Point, Point]
    floating: bool


@attrs.frozen
class Drawing:
    """Boxes and lines, and the size of all, in pixels."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: float
    height: float


def layers(deployments: Sequence[DeploymentConfig]) -> list[list[DeploymentConfig]]:
    """Deployments by how many others stand between them and the gateway at most, each in Flow order."""
    known = {each.name: each for each in deployments}
    depth: dict[str, int] = {START: -1}

    def of(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((of(need) for need in known[name].needs), default=-1)
        return depth[name]

    result: list[list[DeploymentConfig]] = []
    for each in sorted(deployments, key=lambda each: of(each.name)):
        if of(each.name) == len(result):
            result.append([])
        result[-1].append(each)
    return result


def drawing(flow: FlowConfig, *, vertical: bool) -> Drawing:
    """The picture of ``flow``, from left to right or from top to bottom."""
    placed = _rows(_layers_of_boxes(flow)) if vertical else _columns(_layers_of_boxes(flow))
    width = max(box.x + box.width for box in placed.values()) + _MARGIN
    height = max(box.y + BOX_HEIGHT for box in placed.values()) + _MARGIN
    lines = tuple(
        Line((_downwards if vertical else _rightwards)(placed[start], placed[end]), floating)
        for start, end, floating in _ties(flow)
        if start in placed
    )
    return Drawing(tuple(placed.values()), lines, width, height)


# One box before it is placed: its name ("" is the answer's), title, detail and kind.
_Text = tuple[str, str, str, str]


def _layers_of_boxes(flow: FlowConfig) -> list[list[_Text]]:
    gateway = flow.gateway
    listens = ", ".join(
        "+".join(listener.protocols) + (f" :{listener.port}" if listener.port else "")
        for listener in gateway.listeners
    )
    between = [
        [(each.name, each.name, _detail(each), _kind(each)) for each in layer]
        for layer in layers(flow.deployments)
    ]
    return [[(START, gateway.name, listens, "end")], *between, [("", "answer", "", "end")]]


def _ties(flow: FlowConfig) -> list[tuple[str, str, bool]]:
    """From where to where lines go, and whether to something floating."""
    answering = next((each.name for each in reversed(flow.deployments) if not each.floating), START)
    found = [(need, each.name, each.floating) for each in flow.deployments for need in each.needs]
    return [*found, (answering, "", False)]


def _columns(layers: list[list[_Text]]) -> dict[str, Box]:
    tallest = max(map(len, layers))
    height = 2 * _MARGIN + tallest * BOX_HEIGHT + (tallest - 1) * _SMALL_GAP
    boxes: dict[str, Box] = {}
    x: float = _MARGIN
    for layer in layers:
        width = max(_width(title, detail) for _, title, detail, _ in layer)
        y = (height - len(layer) * BOX_HEIGHT - (len(layer) - 1) * _SMALL_GAP) / 2
        for name, title, detail, kind in layer:
            boxes[name] = Box(title, detail, kind, x, y, width)
            y += BOX_HEIGHT + _SMALL_GAP
        x += width + _GAP
    return boxes


def _rows(layers: list[list[_Text]]) -> dict[str, Box]:
    widths = [[_width(title, detail) for _, title, detail, _ in layer] for layer in layers]
    row_widths = [sum(row) + (len(row) - 1) * _SMALL_GAP for row in widths]
    boxes: dict[str, Box] = {}
    y: float = _MARGIN
    for layer, row, row_width in zip(layers, widths, row_widths, strict=True):
        x = _MARGIN + (max(row_widths) - row_width) / 2
        for (name, title, detail, kind), width in zip(layer, row, strict=True):
            boxes[name] = Box(title, detail, kind, x, y, width)
            x += width + _SMALL_GAP
        y += BOX_HEIGHT + _GAP
    return boxes


def _rightwards(start: Box, end: Box) -> tuple[Point, Point, Point, Point]:
    x1, y1 = start.x + start.width, start.y + BOX_HEIGHT / 2
    x2, y2 = end.x, end.y + BOX_HEIGHT / 2
    bend = min(_GAP, x2 - x1) * 0.6
    return (x1, y1), (x1 + bend, y1), (x2 - bend, y2), (x2, y2)


def _downwards(start: Box, end: Box) -> tuple[Point, Point, Point, Point]:
    x1, y1 = start.x + start.width / 2, start.y + BOX_HEIGHT
    x2, y2 = end.x + end.width / 2, end.y
    bend = min(_GAP, y2 - y1) * 0.6
    return (x1, y1), (x1, y1 + bend), (x2, y2 - bend), (x2, y2)


def _width(title: str, detail: str) -> float:
    return max(72.0, 28 + _LETTER_PX * max(len(title), len(detail) * 0.8))


def _detail(deployment: DeploymentConfig) -> str:
    if deployment.external:
        return ", ".join(deployment.addresses)
    uses = (deployment.executor.uses or "pass-through").rpartition(":")[2]
    parts = [uses]
    if deployment.shards > 1:
        parts.append(f"{deployment.shards} shards")
    if deployment.scaling is not None:
        parts.append(f"{deployment.scaling.least} to {deployment.scaling.most} replicas")
    elif deployment.replicas > 1:
        parts.append(f"{deployment.replicas} replicas")
    return ", ".join(parts)


def _kind(deployment: DeploymentConfig) -> str:
    return "external" if deployment.external else "own"
