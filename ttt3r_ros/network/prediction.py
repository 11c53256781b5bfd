# SPDX-License-Identifier: Apache-2.0
"""What the network says about one image. Composing poses over segments is not the network's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one step, float32, on the network's device.

    Lengths are the network's own metres: no scale is known beyond what its training taught it.
    "World" is the camera of the stream's first image. Camera axes: x right, y down, z forward.
    """

    points: Tensor  # [B, H, W, 3], m, camera frame
    confidence: Tensor  # [B, H, W], from 1 upwards
    pose: Tensor  # [B, 7], camera to world: tx ty tz in m, unit quaternion qw qx qy qz, qw >= 0
    pose_matrix: Tensor  # [B, 4, 4], camera to world, the same pose
    gain: Tensor  # [B, S], share of the proposed state each state token took, 0 to 1
    points_in_world: Tensor | None = None  # [B, H, W, 3], m; with world_points_head only
    confidence_in_world: Tensor | None = (
        None  # [B, H, W], from 1 upwards; with world_points_head only
    )
