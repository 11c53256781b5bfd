# SPDX-License-Identifier: Apache-2.0
"""Textures tile, differ, and blur as pixels cover more of them."""

from __future__ import annotations

import torch

from ttt3r_ros.simulation.textures import make_atlas, shared_atlas

ATLAS = make_atlas(seed=3, variants=2, size=64, levels=6)
COUNT = sum(len(numbers) for numbers in ATLAS.families.values())


def sampled(u, v, texels):
    """Every texture at the same places [n]: [2, COUNT, n]."""
    texture = torch.arange(COUNT).float()[:, None, None].expand(COUNT, 1, len(u))
    u, v = u.expand(COUNT, 1, -1), v.expand(COUNT, 1, -1)
    return ATLAS.sample(texture, u, v, torch.full_like(u, texels))[:, :, 0]


def test_textures_repeat_after_one_tile_without_a_seam_at_every_level():
    line = (torch.arange(40) + 0.5) / 40
    edge = torch.zeros(40)
    for level in range(ATLAS.levels):
        footprint = 2.0**level
        inside = sampled(line, line.flip(0), footprint)
        torch.testing.assert_close(
            sampled(line - 3, line.flip(0) + 2, footprint), inside, rtol=0, atol=1e-3
        )
        left, right = sampled(edge + 1e-4, line, footprint), sampled(edge - 1e-4, line, footprint)
        assert (left - right).abs().max() < 0.02
        below, above = sampled(line, edge - 1e-4, footprint), sampled(line, edge + 1e-4, footprint)
        assert (below - above).abs().max() < 0.02


def test_the_lookup_returns_texels_at_their_centres():
    centres = (torch.arange(64) + 0.5) / 64
    got = sampled(centres, centres, 1.0)
    tile = ATLAS.image.view(2, COUNT, 66, -1)[:, :, 1:65, 1:65]
    torch.testing.assert_close(got, tile.diagonal(dim1=-2, dim2=-1), rtol=0, atol=1e-3)


def test_coarser_levels_blur_and_keep_the_mean():
    generator = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, 4000, generator=generator)
    fine, coarse = sampled(u, v, 1.0), sampled(u, v, 64.0)
    assert (coarse.std(-1) <= fine.std(-1) + 0.01).all()
    assert (coarse.mean(-1) - fine.mean(-1)).abs().max() < 0.06


def test_every_texture_has_contrast_and_stays_in_range():
    tile = ATLAS.image.view(2, COUNT, 66, -1)[:, :, 1:65, 1:65].flatten(2)
    assert tile.min() >= 0 and tile.max() <= 1
    assert (tile[0] * tile[1]).std(-1).min() > 0.05
    assert torch.unique(tile[0], dim=0).shape[0] == COUNT


def test_atlases_repeat_by_seed_and_the_shared_one_is_drawn_once():
    again, other = (make_atlas(seed, variants=2, size=64, levels=6) for seed in (3, 4))
    assert torch.equal(again.image, ATLAS.image)
    assert not torch.equal(other.image, ATLAS.image)
    assert shared_atlas() is shared_atlas()
