# SPDX-License-Identifier: Apache-2.0
"""Points under a transform, on their own device."""

from __future__ import annotations

import torch
from torch import Tensor

from ttt3r_ros.geometry import Transform


def moved_points(points: Tensor, T: Transform) -> Tensor:
    """Move points [N, 3] by a rigid or similarity transform [4, 4]: T · p, [N, 3].

    Not by a matrix product: a GPU may round its factors to the 10 bits of TF32, by a switch that
    is one for all threads. On a CPU this takes 0.8 of the product's time besides.
    """
    columns = torch.as_tensor(T[:3].T.copy(), dtype=points.dtype, device=points.device)  # [4, 3]
    moved = torch.addcmul(columns[3], points[:, :1], columns[0])
    return moved.addcmul_(points[:, 1:2], columns[1]).addcmul_(points[:, 2:], columns[2])
