"""
The picture of ``plot.py`` as PNG, for where SVG cannot be shown. Drawn with Pillow, an extra.
"""

from __future__ import annotations

import io
from typing import Any, Final

from gatewayd.config import FlowConfig
from gatewayd.flow.plot_layout import BOX_HEIGHT, GAP_X, Box, placed, ties

# Drawn large, so that it is sharp on any screen.
_SCALE: Final = 2
_INK: Final = "#1b1f24"
_GREY: Final = "#868e96"
_TEAL: Final = "#0b7285"
_WHITE: Final = "#ffffff"


def png(flow: FlowConfig) -> bytes:
    """The picture. Raises ValueError where Pillow is not installed."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ValueError("a PNG needs Pillow: pip install 'gatewayd[png]', or plot to .svg") from error
    boxes, width, height = placed(flow)
    image = Image.new("RGB", (round(width * _SCALE), round(height * _SCALE)), _WHITE)
    draw = ImageDraw.Draw(image)
    for start, end, floating in ties(flow, boxes):
        _draw_line(draw, start, end, floating)
    large, small = ImageFont.load_default(14 * _SCALE), ImageFont.load_default(11 * _SCALE)
    for box in boxes.values():
        _draw_box(draw, box, large, small)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _draw_box(draw: Any, box: Box, large: Any, small: Any) -> None:
    filled = box.kind == "end"
    corners = [box.x, box.y, box.x + box.width, box.y + BOX_HEIGHT]
    scaled = [each * _SCALE for each in corners]
    draw.rounded_rectangle(scaled, 8 * _SCALE, fill=_TEAL if filled else _WHITE, outline=_TEAL, width=3)
    middle = (box.x + box.width / 2) * _SCALE
    title_y = box.y + (17 if box.detail else BOX_HEIGHT / 2)
    draw.text((middle, title_y * _SCALE), box.title, _WHITE if filled else _INK, large, anchor="mm")
    draw.text((middle, (box.y + 36) * _SCALE), box.detail, _WHITE if filled else _GREY, small, anchor="mm")


def _draw_line(draw: Any, start: Box, end: Box, floating: bool) -> None:
    """The curve of the SVG as short straight pieces; every other one where it is dashed."""
    x1, y1 = start.x + start.width, start.y + BOX_HEIGHT / 2
    x2, y2 = end.x, end.y + BOX_HEIGHT / 2
    bend = min(GAP_X, x2 - x1) * 0.6
    points = []
    for step in range(41):
        t = step / 40
        a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        x = a * x1 + b * (x1 + bend) + c * (x2 - bend) + d * x2
        points.append((x * _SCALE, ((a + b) * y1 + (c + d) * y2) * _SCALE))
    for index in range(0, 40, 2 if floating else 1):
        draw.line(points[index : index + 2], _GREY, 3)
    tip_x, tip_y = x2 * _SCALE, y2 * _SCALE
    draw.polygon([(tip_x, tip_y), (tip_x - 14, tip_y - 8), (tip_x - 14, tip_y + 8)], _GREY)
