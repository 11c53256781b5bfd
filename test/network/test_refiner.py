# SPDX-License-Identifier: Apache-2.0
"""The small residual that lets no seams show between the patches of a linear head."""

from __future__ import annotations

import pytest
import torch

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.refiner import Refiner

SMALL = {
    "enc_embed_dim": 16,
    "enc_depth": 1,
    "enc_num_heads": 2,
    "dec_embed_dim": 16,
    "dec_depth": 1,
    "dec_num_heads": 2,
    "state_dec_num_heads": 2,
    "state_size": 4,
    "local_mem_size": 2,
    "patch_size": 4,
}


def network(refiner_width):
    torch.manual_seed(0)
    return Network(NetworkConfig(**SMALL, refiner_width=refiner_width)).eval()


def test_without_a_width_the_architecture_is_the_published_one():
    assert not [name for name in network(0).state_dict() if "refiner" in name]
    assert NetworkConfig(**SMALL).refiner_width == 0


@torch.no_grad()
def test_a_refiner_that_adds_nothing_leaves_points_and_confidence_as_they_are():
    image = torch.rand(2, 3, 8, 12)
    plain, refined = network(0), network(6)
    refined.load_state_dict(plain.state_dict(), strict=False)
    last = refined.downstream_head.refiner.conv4
    last.weight.zero_()
    last.bias.zero_()
    _, a = plain.step(plain.initial_state(2), image)
    _, b = refined.step(refined.initial_state(2), image)
    assert torch.equal(a.points, b.points) and torch.equal(a.confidence, b.confidence)


@torch.no_grad()
def test_the_refiner_sees_the_very_pixels_of_the_image():
    seen = []
    small = network(6)
    small.downstream_head.refiner.register_forward_hook(lambda _, given, __: seen.append(given[1]))
    image = torch.rand(2, 3, 8, 12)
    small.step(small.initial_state(2), image)
    assert torch.equal(seen[0], image.permute(0, 2, 3, 1))


@torch.no_grad()
def test_a_pixel_is_refined_from_both_sides_of_a_seam():
    refiner = Refiner(6)
    raw, image = torch.randn(1, 32, 32, 4), torch.rand(1, 32, 32, 3)
    before = refiner(raw, image)
    raw[0, 16, 16] += 1.0
    changed = (refiner(raw, image) - before).abs().amax(dim=-1)[0] > 0
    assert changed[16, 15] and changed[16, 17] and changed[15, 16] and not changed[16, 2]


def test_features_without_the_pixels_are_refused_where_a_refiner_needs_them():
    small = network(6)
    with pytest.raises(ValueError, match="rows, columns, 64"):
        small.advance(small.initial_state(1), torch.zeros(1, 2, 3, 16))


@pytest.mark.parametrize(
    "change",
    [
        {"refiner_width": -1},
        {"refiner_width": 4, "patch_size": 3},
        {"refiner_width": 4, "head_type": "dpt", "patch_size": 16},
    ],
)
def test_refiners_that_cannot_be_built_are_refused(change):
    with pytest.raises(ValueError, match="refiner_width"):
        NetworkConfig(**(SMALL | change))
