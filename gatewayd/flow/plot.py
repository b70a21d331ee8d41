"""
A Flow as a picture: SVG, drawn in layers from the gateway on the left to the answer on the right.

    gateway ── encoder ─┬─ indexer ─┬─ joiner ── answer
                        └─ ranker  ─┘

A Deployment stands one layer behind the last of those it needs. Dashed boxes are external, dashed
lines lead to what floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import attrs

from gatewayd.config import DeploymentConfig, FlowConfig
from gatewayd.config.graph import START

_FONT: Final = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', sans-serif"
# Wide enough for any of the font's letters, on average, at 14 px.
_LETTER_PX: Final = 7.6
BOX_HEIGHT: Final = 52
GAP_X: Final = 64
_GAP_Y: Final = 24
_MARGIN: Final = 24

# Colours that can be read on white and, through the media query, on a dark page.
_STYLE: Final = f"""
  text {{ font-family: {_FONT}; font-size: 14px; fill: #1b1f24; }}
  .small {{ font-size: 11px; fill: #57606a; }}
  rect {{ fill: #ffffff; stroke: #0b7285; stroke-width: 1.5; }}
  .end rect {{ fill: #0b7285; }}
  .end text {{ fill: #ffffff; }}
  .end .small {{ fill: #e3fafc; }}
  .external rect {{ stroke-dasharray: 6 4; }}
  path {{ fill: none; stroke: #868e96; stroke-width: 1.5; }}
  path.floating {{ stroke-dasharray: 3 4; }}
  #tip path {{ fill: #868e96; stroke: none; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3; }}
    .small {{ fill: #9da7b1; }}
    rect {{ fill: #161b22; stroke: #3bc9db; }}
  }}
"""


@attrs.frozen
class Box:
    """One node: its lines of text and where its left upper corner is."""

    title: str
    detail: str
    kind: str
    x: float
    y: float
    width: float


def picture(flow: FlowConfig, suffix: str) -> bytes:
    """
    The content of a picture's file, by how its name ends: ``.svg``, or ``.png`` (drawn with Pillow).

    Raises ValueError for another ending, and for PNG without Pillow.
    """
    if suffix == ".svg":
        return svg(flow).encode()
    if suffix == ".png":
        from gatewayd.flow.plot_png import png

        return png(flow)
    raise ValueError(f"a Flow is drawn as .svg or .png, not as {suffix or 'a file without an ending'}")


def svg(flow: FlowConfig) -> str:
    """The picture, an XML document whose size is its content's."""
    boxes, width, height = placed(flow)
    lines = [_line(*tie) for tie in ties(flow, boxes)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{escape(flow.name or 'Flow')}</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
            *lines,
            *(_drawn(box) for box in boxes.values()),
            "</svg>",
            "",
        ]
    )


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


def _drawn(box: Box) -> str:
    middle = box.x + box.width / 2
    first = box.y + (BOX_HEIGHT / 2 + 5 if not box.detail else 22)
    detail = (
        f'<text class="small" text-anchor="middle" x="{middle:.1f}" y="{box.y + 39:.1f}">'
        f"{escape(box.detail)}</text>"
        if box.detail
        else ""
    )
    return (
        f'<g class="{box.kind}"><rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{BOX_HEIGHT}" rx="8"/>'
        f'<text text-anchor="middle" x="{middle:.1f}" y="{first:.1f}">{escape(box.title)}</text>{detail}</g>'
    )


def _line(start: Box, end: Box, floating: bool) -> str:
    x1, y1 = start.x + start.width, start.y + BOX_HEIGHT / 2
    x2, y2 = end.x, end.y + BOX_HEIGHT / 2
    bend = min(GAP_X, x2 - x1) * 0.6
    style = ' class="floating"' if floating else ""
    return (
        f'<path{style} marker-end="url(#tip)" d="M{x1:.1f} {y1:.1f} '
        f'C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"/>'
    )
