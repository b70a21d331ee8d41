"""
The picture of ``plot.py`` as PNG, for where SVG cannot be shown. Drawn with Pillow, an extra.
"""

from __future__ import annotations

import io
from typing import Any, Final

from gatewayd.flow.plot_layout import BOX_HEIGHT, Box, Drawing, Line

# Drawn large, so that it is sharp on any screen.
_SCALE: Final = 2
_INK: Final = "#1b1f24"
_GREY: Final = "#868e96"
_TEAL: Final = "#0b7285"
_WHITE: Final = "#ffffff"


def png(drawing: Drawing) -> bytes:
    """The picture. Raises ValueError where Pillow is not installed."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ValueError("a PNG needs Pillow: pip install 'gatewayd[png]', or plot to .svg") from error
    size = round(drawing.width * _SCALE), round(drawing.height * _SCALE)
    image = Image.new("RGB", size, _WHITE)
    draw = ImageDraw.Draw(image)
    for line in drawing.lines:
        _draw_line(draw, line)
    large, small = ImageFont.load_default(14 * _SCALE), ImageFont.load_default(11 * _SCALE)
    for box in drawing.boxes:
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


def _draw_line(draw: Any, line: Line) -> None:
    """The curve of the SVG as short straight pieces; every other one where it is dashed."""
    points = []
    for step in range(41):
        t = step / 40
        weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
        x, y = (
            sum(weight * value for weight, value in zip(weights, values, strict=True))
            for values in zip(*line.points, strict=True)
        )
        points.append((x * _SCALE, y * _SCALE))
    for index in range(0, 40, 2 if line.floating else 1):
        draw.line(points[index : index + 2], _GREY, 3)
    *_, (_, y), (tip_x, tip_y) = ((x * _SCALE, y * _SCALE) for x, y in line.points)
    sides = ((-14, -8), (-14, 8)) if y == tip_y else ((-8, -14), (8, -14))
    draw.polygon([(tip_x, tip_y), *((tip_x + dx, tip_y + dy) for dx, dy in sides)], _GREY)
