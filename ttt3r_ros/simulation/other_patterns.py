# SPDX-License-Identifier: Apache-2.0
"""Other families of textures under the names of `patterns.FAMILIES`, kept out of every training.

What is measured on rooms with these says how a network does with surfaces of a kind it never saw.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ttt3r_ros.simulation.patterns import PLAIN, Loom, Weave, weave_plain


def _waves(loom: Loom) -> tuple[Tensor, Tensor]:
    """Bent lines across the tile."""
    count, bends = loom.integer(6, 12), loom.integer(1, 3)
    bent = loom.u + 0.04 * torch.sin(2 * math.pi * bends * loom.v)
    line = 0.5 + 0.5 * torch.sin(2 * math.pi * count * bent)
    return line, 0.7 + 0.3 * loom.noise(1.6)


def _chevrons(loom: Loom) -> tuple[Tensor, Tensor]:
    """Zigzags."""
    count, teeth = loom.integer(5, 9), loom.integer(3, 6)
    tooth = (loom.v * teeth % 1 - 0.5).abs()
    band = (loom.u * count + tooth) % 1
    return (band < 0.5).float(), 0.75 + 0.25 * loom.noise(1.0)


def _hexagons(loom: Loom) -> tuple[Tensor, Tensor]:
    """A honeycomb, each cell of its own shade."""
    count = 2 * loom.integer(2, 3)
    mix, x, y = loom.cells(count, count, 0.5)
    x, y = (x - 0.5).abs(), (y - 0.5).abs()
    rim = torch.maximum(x, 0.55 * x + 0.85 * y) < 0.43
    return mix * rim, 0.55 + 0.45 * rim


def _rings(loom: Loom) -> tuple[Tensor, Tensor]:
    """Circles around the middles of cells."""
    count, rings = loom.integer(2, 4), loom.integer(3, 5)
    shade, x, y = loom.cells(count, count)
    far = torch.hypot(x - 0.5, y - 0.5).clamp(max=0.5)
    return (0.5 + 0.5 * torch.cos(4 * math.pi * rings * far)) * (0.4 + 0.6 * shade), 0.9 + 0 * far


def _camouflage(loom: Loom) -> tuple[Tensor, Tensor]:
    """Patches of four shades."""
    return (loom.noise(2.0) * 4).floor() / 3, 0.75 + 0.25 * loom.noise(1.8)


def _print(loom: Loom) -> tuple[Tensor, Tensor]:
    """Lines of small marks, as a printed page."""
    rows, columns = loom.integer(10, 16), loom.integer(24, 40)
    mark, x, y = loom.cells(columns, rows)
    dark = ((mark > 0.3) & (y > 0.35) & (y < 0.8) & (x > 0.15)).float()
    return dark, 1 - 0.2 * loom.noise(1.2) * dark


def _scribble(loom: Loom) -> tuple[Tensor, Tensor]:
    """Thin lines where a smooth field passes a level."""
    field = loom.noise(2.2)
    line = ((field * loom.integer(5, 9)) % 1 - 0.5).abs() < 0.12
    return line.float(), 0.8 + 0.2 * loom.noise(1.4)


def _triangles(loom: Loom) -> tuple[Tensor, Tensor]:
    """Squares cut along a diagonal."""
    count = loom.integer(4, 7)
    shade, x, y = loom.cells(count, count)
    return torch.where(x > y, shade, 1 - shade), 0.8 + 0.2 * loom.noise(0.9)


def _weave(loom: Loom) -> tuple[Tensor, Tensor]:
    """Bands over and under each other, as a basket."""
    count = 2 * loom.integer(3, 5)
    _, x, y = loom.cells(count, count)
    over = ((loom.u * count).long() + (loom.v * count).long()) % 2 == 0
    across = torch.where(over, x, y)
    return over.float() * 0.5, 0.45 + 0.55 * torch.sin(math.pi * across)


def _folders(loom: Loom) -> tuple[Tensor, Tensor]:
    """Wide backs with a label each, on boards."""
    shade, x, y = loom.cells(loom.integer(9, 13), 3)
    label = ((x - 0.5).abs() < 0.28) & (y > 0.45) & (y < 0.8)
    board = y > 0.94
    back = (x - 0.5).abs() < 0.46
    return torch.where(label | board, 0.0, shade), 0.3 + 0.5 * back + 0.2 * label + 0.3 * board


def _drawers(loom: Loom) -> tuple[Tensor, Tensor]:
    """Wide fronts above each other, a bar on each."""
    _, x, y = loom.cells(1, loom.integer(3, 6))
    front = (y > 0.05) & (x > 0.02) & (x < 0.98)
    bar = ((x - 0.5).abs() < 0.2) & ((y - 0.5).abs() < 0.08)
    return torch.where(bar, 1.0, 0.25 + 0 * x), (0.35 + 0.55 * front) * (1 - 0.5 * bar)


def _poster(loom: Loom) -> tuple[Tensor, Tensor]:
    """Smooth shades between random corners under a few rays."""
    corners = loom.rand(4)
    smooth = torch.lerp(
        torch.lerp(corners[0], corners[1], loom.u), torch.lerp(corners[2], corners[3], loom.u),
        loom.v,
    )  # fmt: skip
    angle = torch.atan2(loom.v - float(loom.rand(1)), loom.u - float(loom.rand(1)))
    rays = ((angle * loom.integer(3, 7) / math.pi) % 1 < 0.5).float()
    return 0.6 * smooth + 0.4 * rays, 0.75 + 0.25 * loom.noise(1.6)


def _blinds(loom: Loom) -> tuple[Tensor, Tensor]:
    """Slats before the light."""
    slats = loom.integer(10, 18)
    slat = (loom.v * slats) % 1
    return 0.3 * slat, 0.5 + 0.5 * (slat > 0.25)


def _gate(loom: Loom) -> tuple[Tensor, Tensor]:
    """Upright boards under two crossbars."""
    _, x, _ = loom.cells(loom.integer(5, 8), 1)
    bars = ((loom.v - 0.25).abs() < 0.05) | ((loom.v - 0.75).abs() < 0.05)
    board = (x > 0.08).float()
    return 0.4 * loom.noise(1.2, stretch=6.0), torch.where(bars, 0.9, 0.4 + 0.4 * board)


OTHER_FAMILIES: dict[str, Weave] = {
    "checks": _triangles, "stripes": _waves, "bricks": _hexagons, "planks": _chevrons,
    "parquet": _weave, "tiles": _rings, "noise": _scribble, "blobs": _camouflage, "dots": _print,
    "marble": _scribble, "plaid": _triangles, "books": _folders, "panels": _drawers,
    "picture": _poster, "window": _blinds, "door": _gate, PLAIN: weave_plain,
}  # fmt: skip
"""The families by the names that materials ask for."""
