# SPDX-License-Identifier: Apache-2.0
"""Keyframes and views of places, without a network's step."""

from __future__ import annotations

import numpy as np
import torch
from small_network import CONFIG

from ttt3r_ros.geometry import Intrinsics, Transform, transform
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.relocalization.keyframes import Keyframe, describe
from ttt3r_ros.types import TrackedView

LENS = Intrinsics(96.0, 96.0, 63.5, 47.5, 128, 96)
DEPTH_M = 2.0


def features(looks: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(looks)
    return torch.randn(1, 6, 8, CONFIG.enc_embed_dim, generator=generator)


def descriptor(looks: int) -> np.ndarray:
    return describe(features(looks), CONFIG.enc_embed_dim).numpy()


def at(x_m: float = 0.0, y_m: float = 0.0, turned: float = 0.0) -> Transform:
    """A camera that stands there, turned about its vertical."""
    cosine, sine = np.cos(turned), np.sin(turned)
    return transform([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], (x_m, 0.0, y_m))


def keyframe(segment: int, looks: int, T_map_camera: Transform | None = None) -> Keyframe:
    nothing = torch.zeros(0)
    return Keyframe(
        stamp_ns=segment,
        segment=segment,
        state=RecurrentState(nothing, nothing, nothing, {}),
        scale=1.0,
        T_map_segment=np.eye(4),
        T_map_camera=at() if T_map_camera is None else T_map_camera,
        points=torch.zeros(48, 64, 3, dtype=torch.float16),
        confidence=torch.ones(48, 64, dtype=torch.float16),
        rgb=np.zeros((48, 64, 3), np.uint8),
        intrinsics=LENS,
        picture=np.zeros((96, 128, 3), np.uint8),
        median_confidence=2.0,
        depth_m=DEPTH_M,
        descriptor=descriptor(looks),
    )


def view(
    number: int,
    segment: int,
    T_odom_camera: Transform,
    T_odom_segment: Transform,
    *,
    looks: int = 0,
    T_map_odom: Transform | None = None,
    begin: np.ndarray | None = None,
    is_sure: bool = True,
    relocalized_in: int | None = None,
) -> TrackedView:
    """An image at 10 Hz."""
    return TrackedView(
        stamp_ns=number * 100_000_000,
        segment=segment,
        T_odom_segment=T_odom_segment,
        T_odom_camera=T_odom_camera,
        T_map_odom=np.eye(4) if T_map_odom is None else T_map_odom,
        begin_covariance=np.diag([0.05**2] * 3 + [0.03**2] * 3) if begin is None else begin,
        is_sure=is_sure,
        relocalized_in=relocalized_in,
        features=features(looks),
        rgb=np.zeros((96, 128, 3), np.uint8),
        intrinsics=LENS,
        depth_m=DEPTH_M,
    )
