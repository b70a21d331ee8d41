"""
Where the boxes and lines of a plotted Flow are: in layers, from the gateway to the answer.

A Deployment stands one layer behind the last of those it needs.
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
GAP_X: Final = 64
_GAP_Y: Final = 24
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


def ties(flow: FlowConfig, boxes: dict[str, Box]) -> list[tuple[Box, Box, bool]]:
    """From where to where lines go, and whether to something floating."""
    answering = next((each.name for each in reversed(flow.deployments) if not each.floating), START)
    found = [
        (boxes[need], boxes[each.name], each.floating)
        for each in flow.deployments
        for need in each.needs
        if need in boxes
    ]
    return [*found, (boxes[answering], boxes[""], False)]


def placed(flow: FlowConfig) -> tuple[dict[str, Box], float, float]:
    """Boxes by name, ``""`` being the answer, and the size of all."""
    gateway = flow.gateway
    listens = ", ".join(
        "+".join(listener.protocols) + (f" :{listener.port}" if listener.port else "")
        for listener in gateway.listeners
    )
    columns: list[list[tuple[str, str, str, str]]] = [[(START, gateway.name, listens, "end")]]
    for layer in layers(flow.deployments):
        columns.append([(each.name, each.name, _detail(each), _kind(each)) for each in layer])
    columns.append([("", "answer", "", "end")])
    tallest = max(len(column) for column in columns)
    height = 2 * _MARGIN + tallest * BOX_HEIGHT + (tallest - 1) * _GAP_Y
    boxes: dict[str, Box] = {}
    x: float = _MARGIN
    for column in columns:
        width = max(_width(title, detail) for _, title, detail, _ in column)
        y = (height - len(column) * BOX_HEIGHT - (len(column) - 1) * _GAP_Y) / 2
        for name, title, detail, kind in column:
            boxes[name] = Box(title, detail, kind, x, y, width)
            y += BOX_HEIGHT + _GAP_Y
        x += width + GAP_X
    return boxes, x - GAP_X + _MARGIN, height


def _width(title: str, detail: str) -> float:
    return max(72.0, 28 + _LETTER_PX * max(len(title), len(detail) * 0.8))


def _detail(deployment: DeploymentConfig) -> str:
    if deployment.external:
        return ", ".join(deployment.addresses)
    uses = (deployment.executor.uses or "pass-through").rpartition(":")[2]
    parts = [uses]
    if deployment.shards > 1:
        parts.append(f"{deployment.shards} shards")
    if deployment.replicas > 1:
        parts.append(f"{deployment.replicas} replicas")
    return ", ".join(parts)


def _kind(deployment: DeploymentConfig) -> str:
    return "external" if deployment.external else "own"
