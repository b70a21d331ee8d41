"""
A Flow as a picture: SVG, drawn in layers from the gateway to the answer.

    gateway ── encoder ─┬─ indexer ─┬─ joiner ── answer
                        └─ ranker  ─┘

A Deployment stands one layer behind the last of those it needs. Dashed boxes are external, dashed
lines lead to what floats.
"""

from __future__ import annotations

from html import escape
from typing import Final

from gatewayd.config import FlowConfig
from gatewayd.flow.plot_layout import BOX_HEIGHT, Box, Line, drawing
from gatewayd.flow.plot_png import png

_FONT: Final = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', sans-serif"

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


def picture(flow: FlowConfig, suffix: str, *, vertical: bool = False) -> bytes:
    """
    The content of a picture's file, by how its name ends: ``.svg``, or ``.png`` (drawn with Pillow).

    It goes from left to right, or, if ``vertical``, from top to bottom. Raises ValueError for another
    ending, and for PNG without Pillow.
    """
    if suffix == ".svg":
        return svg(flow, vertical=vertical).encode()
    if suffix == ".png":
        return png(drawing(flow, vertical=vertical))
    raise ValueError(f"a Flow is drawn as .svg or .png, not as {suffix or 'a file without an ending'}")


def svg(flow: FlowConfig, *, vertical: bool = False) -> str:
    """The picture, an XML document whose size is its content's."""
    drawn = drawing(flow, vertical=vertical)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawn.width:.0f}" '
            f'height="{drawn.height:.0f}" viewBox="0 0 {drawn.width:.0f} {drawn.height:.0f}" role="img">',
            f"<title>{escape(flow.name or 'Flow')}</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
            *map(_line, drawn.lines),
            *map(_drawn, drawn.boxes),
            "</svg>",
            "",
        ]
    )


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


def _line(line: Line) -> str:
    (x1, y1), (x2, y2), (x3, y3), (x4, y4) = line.points
    style = ' class="floating"' if line.floating else ""
    return (
        f'<path{style} marker-end="url(#tip)" d="M{x1:.1f} {y1:.1f} '
        f'C{x2:.1f} {y2:.1f} {x3:.1f} {y3:.1f} {x4:.1f} {y4:.1f}"/>'
    )
