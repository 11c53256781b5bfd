# SPDX-License-Identifier: Apache-2.0
"""What a keyframe store is offered, without a network's step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from small_network import CONFIG, small_network

from ttt3r_ros.geometry import Intrinsics, transform
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.relocalization.keyframes import describe

HEIGHT, WIDTH = 96, 128
LENS = Intrinsics(96.0, 96.0, 63.5, 47.5, WIDTH, HEIGHT)


def random_features(seed: int) -> torch.Tensor:
    """Features of an image that looks like no other, [1, 6, 8, E]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, HEIGHT // 16, WIDTH // 16, CONFIG.enc_embed_dim, generator=generator)


def random_state(seed: int) -> RecurrentState:
    """A state of the small network that is not its first."""
    generator = torch.Generator().manual_seed(seed)
    first = _first_state()
    noise = torch.randn(first.tokens.shape, generator=generator)
    return RecurrentState(first.tokens + noise, first.memory, torch.zeros_like(first.fresh), {})


@cache
def _first_state() -> RecurrentState:
    return small_network().initial_state()


def offered(
    number: int, x_m: float = 0.0, looks: int | None = None, depth_m: float = 2.0
) -> dict[str, Any]:
    """A wall `depth_m` away, seen from x_m; looks like that of every other with these `looks`."""
    looks = number if looks is None else looks
    points = torch.full((HEIGHT, WIDTH, 3), depth_m)
    points[..., 0] = (torch.arange(WIDTH) - LENS.cx) / LENS.fx * depth_m
    points[..., 1] = ((torch.arange(HEIGHT) - LENS.cy) / LENS.fy * depth_m)[:, None]
    rgb = np.random.default_rng(looks).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return dict(
        stamp_ns=10**18 + number,
        segment=number // 12,
        state=random_state(number),
        scale=1.5,
        T_map_segment=transform(np.eye(3), (0.1, 0.2, 0.3)),
        T_map_camera=transform(np.eye(3), (x_m, 0.0, 0.0)),
        points=points,
        confidence=torch.full((HEIGHT, WIDTH), 3.0),
        rgb=rgb,
        intrinsics=LENS,
        median_confidence=3.0,
        descriptor=describe(random_features(looks), CONFIG.enc_embed_dim),
    )
