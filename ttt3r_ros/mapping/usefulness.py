# SPDX-License-Identifier: Apache-2.0
"""Which voxels a full map can do without: one score, the lowest go first.

    hits / ((1 + images unseen / 100) (1 + distance from the camera / 200 voxel edges))

`hits` is at most 100. Noise, seen once or twice, goes before walls; of walls those go that were
left behind long ago and far away. A wall with 100 hits is worth more than a newcomer for 10 000
images, and noise is worth half of a newcomer after 100.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttt3r_ros.geometry import Vector
from ttt3r_ros.mapping.voxels import Voxels

_HALF_AGE = 100  # images unseen that halve it
_HALF_DISTANCE = 200  # voxel edges from the camera that halve it: 10 m at 5 cm


def usefulness(
    voxels: Voxels, rows: Tensor | slice, images: int, camera: Vector | None, voxel_size: float
) -> Tensor:
    """Return the score [M] of rows [M].

    Args:
        voxels: the whole map's.
        rows: of the voxels to judge.
        images: count of images so far.
        camera: [3], in metres in the map's frame; None: distance does not count.
        voxel_size: edge of a voxel in metres.
    """
    result: Tensor = voxels.hits[rows] / (1 + (images - voxels.seen[rows]) / _HALF_AGE)
    if camera is not None:
        eye = torch.as_tensor(camera, dtype=torch.float32, device=result.device)
        distance = (voxels.mean[rows, :3] - eye).square().sum(dim=1).sqrt()
        result = result / (1 + distance / (_HALF_DISTANCE * voxel_size))
    return result
