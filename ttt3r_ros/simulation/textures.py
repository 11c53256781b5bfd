# SPDX-License-Identifier: Apache-2.0
"""An atlas of textures with blurred levels, and its lookup. What is drawn on them: `patterns`.

Colours belong to the materials that use a texture, so that one atlas serves endless rooms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt3r_ros.simulation.other_patterns import OTHER_FAMILIES
from ttt3r_ros.simulation.patterns import FAMILIES, PLAIN, Loom, Weave, weave_plain

__all__ = ["BORDER", "PLAIN", "Atlas", "make_atlas", "other_atlas", "plain_atlas", "shared_atlas"]

# Every level keeps one texel of its neighbours around it, so that bilinear lookups wrap.
BORDER = 1


@dataclass(frozen=True, slots=True)
class Atlas:
    """Textures as one image: a row of tiles for each texture, its levels side by side."""

    image: Tensor  # [1, 2, rows, columns] in [0, 1]
    size: int  # texels along the side of level 0
    levels: int
    families: dict[str, tuple[int, ...]]  # name -> texture numbers

    def to(self, device: torch.device | str) -> Atlas:
        """The same atlas on another device."""
        return Atlas(self.image.to(device), self.size, self.levels, self.families)

    def sample(self, texture: Tensor, u: Tensor, v: Tensor, texels: Tensor) -> Tensor:
        """Look textures up, bilinearly in the level nearest to the pixel's footprint.

        Args:
            texture: [N, H, W] texture numbers (float).
            u: [N, H, W] across, in tiles; any real number.
            v: [N, H, W] along, in tiles.
            texels: [N, H, W] level-0 texels that a pixel covers.

        Returns:
            [2, N, H, W] mix and brightness.
        """
        level = texels.log2().round().clamp(0, self.levels - 1)
        shrink = torch.exp2(-level)
        side = self.size * shrink
        # Level l starts after the levels before it: size * (2 - 2^(1-l)) texels and their borders.
        left = 2 * self.size - 2 * side + (2 * level + 1) * BORDER
        top = texture * (self.size + 2 * BORDER) + BORDER
        x = (left + (u - u.floor()) * side) * (2 / self.image.shape[3]) - 1
        y = (top + (v - v.floor()) * side) * (2 / self.image.shape[2]) - 1
        grid = torch.stack((x, y), dim=-1)
        flat = grid.reshape(1, -1, grid.shape[2], 2)
        sampled = F.grid_sample(self.image, flat, padding_mode="border", align_corners=False)
        return sampled.reshape(2, *texture.shape)


def make_atlas(
    seed: int = 0,
    variants: int = 3,
    size: int = 256,
    levels: int = 7,
    families: Mapping[str, Weave] = FAMILIES,
) -> Atlas:
    """Draw `variants` textures of every family; pictures, of which rooms show many, thrice that."""
    loom = Loom(seed, size)
    textures: list[Tensor] = []
    numbers = {}
    for name, weave in families.items():
        count = 3 * variants if name == "picture" else variants
        numbers[name] = tuple(range(len(textures), len(textures) + count))
        textures += [torch.stack(weave(loom)).clamp(0, 1) for _ in range(count)]
    level = torch.stack(textures)  # [T, 2, size, size]
    rows = []
    for _ in range(levels):
        tile = F.pad(level, (BORDER, BORDER, BORDER, BORDER), mode="circular")
        rows.append(F.pad(tile, (0, 0, 0, size + 2 * BORDER - tile.shape[2])))
        level = F.avg_pool2d(level, 2)
    strip = torch.cat(rows, dim=3)  # [T, 2, size + 2, columns]
    return Atlas(strip.transpose(0, 1).flatten(1, 2)[None].contiguous(), size, levels, numbers)


@lru_cache(maxsize=4)
def shared_atlas(device: str = "cpu") -> Atlas:
    """The atlas that rooms use unless given another; drawn once for each device."""
    return make_atlas().to(device)


@lru_cache(maxsize=4)
def plain_atlas(device: str = "cpu") -> Atlas:
    """Other textures of the same families, and one without a pattern; drawn once a device."""
    return make_atlas(seed=1, variants=4, families={**FAMILIES, PLAIN: weave_plain}).to(device)


@lru_cache(maxsize=4)
def other_atlas(device: str = "cpu") -> Atlas:
    """Textures of families that no training uses; drawn once a device."""
    return make_atlas(seed=2, variants=2, families=OTHER_FAMILIES).to(device)
