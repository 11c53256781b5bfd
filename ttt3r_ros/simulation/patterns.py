# SPDX-License-Identifier: Apache-2.0
"""The families of procedural textures, each woven on a `Loom`. The atlas is `textures`' concern.

A texture has two channels: how far to go from a material's first colour to its second, and a
brightness. Every one tiles; v runs upwards.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Loom:
    """The grid and the random numbers that texture families are woven from."""

    def __init__(self, seed: int, size: int) -> None:
        self.size = size
        self.generator = torch.Generator().manual_seed(seed)
        line = (torch.arange(size) + 0.5) / size
        self.v, self.u = torch.meshgrid(line, line, indexing="ij")  # [size, size] in (0, 1)

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator)

    def integer(self, low: int, high: int) -> int:
        """One of low, ..., high."""
        return int(torch.randint(low, high + 1, (1,), generator=self.generator))

    def noise(self, roughness: float, stretch: float = 1.0) -> Tensor:
        """Periodic noise in [0, 1], smoother with greater `roughness`, drawn out along v."""
        fv = torch.fft.fftfreq(self.size, 1 / self.size)[:, None] * stretch
        fu = torch.fft.rfftfreq(self.size, 1 / self.size)[None]
        white = torch.randn(self.size, self.size, generator=self.generator)
        spectrum = torch.fft.rfft2(white) * (fu**2 + fv**2 + 4).pow(-roughness / 2)
        field = torch.fft.irfft2(spectrum, s=(self.size, self.size))
        noise: Tensor = (0.5 + 0.22 * (field - field.mean()) / field.std()).clamp(0, 1)
        return noise

    def cells(self, columns: int, rows: int, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """A grid of cells, odd rows shifted: a random number each and the place (x, y), [H, W]."""
        y = self.v * rows
        row = y.long()
        x = (self.u + (row % 2) * shift / columns) * columns
        column = x.long() % columns
        return self.rand(rows, columns)[row, column], x - x.floor(), y - y.floor()


def _frame(x: Tensor, y: Tensor, width: float, aspect: float = 1.0) -> Tensor:
    """1 inside a cell, 0 within `width` of its border."""
    inside_x = (torch.minimum(x, 1 - x) > width).float()
    return inside_x * (torch.minimum(y, 1 - y) > width * aspect).float()


def _checks(loom: Loom) -> tuple[Tensor, Tensor]:
    count = 2 * loom.integer(2, 5)
    odd = ((loom.u * count).long() + (loom.v * count).long()) % 2
    return 0.8 * odd + 0.2 * loom.noise(1.2), 0.8 + 0.2 * loom.noise(0.8)


def _stripes(loom: Loom) -> tuple[Tensor, Tensor]:
    count = loom.integer(10, 18)
    mix = loom.rand(count)[(loom.u * count).long()]
    return 0.7 * mix + 0.3 * loom.noise(1.4), 0.7 + 0.3 * loom.noise(1.2)


def _bricks(loom: Loom) -> tuple[Tensor, Tensor]:
    mix, x, y = loom.cells(loom.integer(3, 5), 2 * loom.integer(4, 6), 0.5)
    joint = _frame(x, y, 0.03, 2.5)
    return mix * joint, (0.65 + 0.35 * joint) * (0.75 + 0.25 * loom.noise(0.8))


def _planks(loom: Loom) -> tuple[Tensor, Tensor]:
    mix, x, y = loom.cells(loom.integer(6, 9), 2, 0.4)
    grain = loom.noise(1.3, stretch=8.0)
    return 0.6 * mix + 0.4 * grain, (0.4 + 0.6 * _frame(x, y, 0.03, 0.25)) * (0.7 + 0.3 * grain)


def _parquet(loom: Loom) -> tuple[Tensor, Tensor]:
    count = 2 * loom.integer(2, 3)
    turned = ((loom.u * count).long() + (loom.v * count).long()) % 2 == 1
    across, along = torch.where(turned, loom.v, loom.u), torch.where(turned, loom.u, loom.v)
    slats = 4 * count
    number = (across * slats).long() * count + (along * count).long()
    mix = loom.rand(slats * count)[number]
    gap = _frame(across * slats % 1, along * count % 1, 0.06, 0.3)
    return 0.7 * mix + 0.3 * loom.noise(1.0), (0.55 + 0.45 * gap) * (0.8 + 0.2 * loom.noise(0.8))


def _tiles(loom: Loom) -> tuple[Tensor, Tensor]:
    count = loom.integer(4, 7)
    mix, x, y = loom.cells(count, count)
    joint = _frame(x, y, 0.03)
    mottled = 0.6 * mix + 0.4 * loom.noise(1.2)
    return mottled * joint, (0.6 + 0.4 * joint) * (0.8 + 0.2 * loom.noise(1.0))


def _noise(loom: Loom) -> tuple[Tensor, Tensor]:
    return loom.noise(1.1 + 0.5 * float(loom.rand(1))), 0.65 + 0.35 * loom.noise(0.6)


def _blobs(loom: Loom) -> tuple[Tensor, Tensor]:
    spots = torch.sigmoid(60 * (loom.noise(2.4) - 0.5))
    return 0.85 * spots + 0.15 * loom.noise(1.0), 0.75 + 0.25 * loom.noise(1.2)


def _dots(loom: Loom) -> tuple[Tensor, Tensor]:
    count = loom.integer(5, 8)
    size, x, y = loom.cells(count, 2 * (count // 2), 0.5)
    disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < (0.15 + 0.25 * size) ** 2).float()
    return 0.6 * disc + 0.4 * loom.noise(1.4), 0.7 + 0.3 * loom.noise(1.2)


def _marble(loom: Loom) -> tuple[Tensor, Tensor]:
    wave = loom.integer(1, 3) * loom.u + loom.integer(1, 3) * loom.v + 2.5 * loom.noise(2.0)
    return 0.5 + 0.5 * torch.sin(2 * torch.pi * wave), 0.75 + 0.25 * loom.noise(0.8)


def _plaid(loom: Loom) -> tuple[Tensor, Tensor]:
    count = loom.integer(9, 14)
    bands = loom.rand(count)
    mix = (bands[(loom.u * count).long()] + bands[(loom.v * count).long()]) / 2
    return 1.3 * mix - 0.3 + 0.3 * loom.noise(1.4), 0.7 + 0.3 * loom.noise(0.7)


def _books(loom: Loom) -> tuple[Tensor, Tensor]:
    shelves, books = loom.integer(4, 6), 24
    mix, x, y = loom.cells(books, shelves)
    tall = loom.rand(shelves, books)[(loom.v * shelves).long(), (loom.u * books).long()]
    book = (y < 0.6 + 0.28 * tall) & (x > 0.08)
    board = y > 0.93
    title = (y > 0.15) & (y < 0.3)
    brightness = 0.25 + 0.55 * book + 0.2 * (book & title) + 0.5 * board
    return torch.where(board, 0.0, mix), brightness


def _panels(loom: Loom) -> tuple[Tensor, Tensor]:
    columns, rows = loom.integer(2, 3), loom.integer(2, 4)
    mix, x, y = loom.cells(columns, rows)
    rim, inner = _frame(x, y, 0.02), _frame(x, y, 0.12)
    handle = ((x - 0.8).abs() < 0.03) & ((y - 0.5).abs() < 0.1)
    wood = loom.noise(1.2, stretch=6.0)
    brightness = (0.3 + 0.55 * rim + 0.15 * inner) * (0.75 + 0.25 * wood)
    return torch.where(handle, 1.0, 0.35 * mix + 0.5 * wood), brightness * (1 - 0.5 * handle)


def _picture(loom: Loom) -> tuple[Tensor, Tensor]:
    mix, brightness = 0.6 * loom.noise(2.2), 0.7 + 0.3 * loom.noise(1.5)
    grain = 0.75 + 0.25 * loom.noise(0.8)
    for _ in range(loom.integer(5, 9)):
        x, y, radius, squareness, shade, light = loom.rand(6).tolist()
        far = torch.maximum((loom.u - x).abs(), 0.7 * (loom.v - y).abs())
        near = torch.hypot(loom.u - x, loom.v - y) if squareness < 0.5 else far
        shape = near < 0.06 + 0.22 * radius
        mix = torch.where(shape, shade, mix)
        brightness = torch.where(shape, (0.45 + 0.55 * light) * grain, brightness)
    mat, edge = _frame(loom.u, loom.v, 0.1), _frame(loom.u, loom.v, 0.04)
    return torch.where(mat > 0, mix, 0.5), (0.15 + 0.8 * edge) * torch.where(mat > 0, brightness, 1)


def _window(loom: Loom) -> tuple[Tensor, Tensor]:
    clouds = loom.noise(2.0)
    hills = loom.v < 0.3 + 0.25 * loom.noise(2.6)[0]
    mix = torch.where(hills, 0.9 - 0.4 * loom.noise(0.9), 0.35 * clouds)
    _, x, y = loom.cells(2, loom.integer(2, 3))
    pane = _frame(x, y, 0.05) * _frame(loom.u, loom.v, 0.05)
    return torch.where(pane > 0, mix, 0.0), torch.where(pane > 0, 0.6 + 0.4 * clouds, 0.35)


def _door(loom: Loom) -> tuple[Tensor, Tensor]:
    wood = loom.noise(1.2, stretch=8.0)
    _, x, y = loom.cells(2, loom.integer(2, 4))
    rim = _frame(loom.u, loom.v, 0.06, 0.5)
    groove = _frame(x, y, 0.16) + 1 - _frame(x, y, 0.12)
    handle = ((loom.u - 0.87).abs() < 0.04) & ((loom.v - 0.48).abs() < 0.012)
    brightness = (0.45 + 0.5 * rim * (0.4 + 0.6 * groove)) * (0.7 + 0.3 * wood)
    return torch.where(handle, 1.0, 0.5 * wood + 0.3 * (1 - groove)), brightness


def weave_plain(loom: Loom) -> tuple[Tensor, Tensor]:
    """Hardly anything to see, as paint or plastic."""
    return 0.15 * loom.noise(2.4), 0.92 + 0.08 * loom.noise(1.0)


Weave = Callable[[Loom], tuple[Tensor, Tensor]]
PLAIN = "plain"
FAMILIES: dict[str, Weave] = {
    "checks": _checks, "stripes": _stripes, "bricks": _bricks, "planks": _planks,
    "parquet": _parquet, "tiles": _tiles, "noise": _noise, "blobs": _blobs, "dots": _dots,
    "marble": _marble, "plaid": _plaid, "books": _books, "panels": _panels,
    "picture": _picture, "window": _window, "door": _door,
}  # fmt: skip
