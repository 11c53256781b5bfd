# SPDX-License-Identifier: Apache-2.0
"""What the network is asked for in training, and helpers that are asked along with it.

The points are judged as in DUSt3R (arXiv 2312.14132): error times confidence, less the logarithm
of the confidence. The helpers teach what a pose needs, motion in the image, long before the pose
itself is learnt; they are dropped afterwards.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.training.clips import Windows, principal_point
from tools.training.settings import HEIGHT, WIDTH
from tools.training.unroll import Unrolled

# A pixel's confidence is drawn to this over its error: 0.4 over 0.1 m at 1 m depth gives 4.
_CONFIDENCE_WEIGHT = 0.4
_ROTATION_WEIGHT = 2.0  # metres that a quaternion's difference is worth
_POSE_REACH_M = 0.3  # from here on a pose's error counts less than in proportion
_EVERY = 4  # the helpers' maps have a point at every fourth pixel
_NEAREST_M = 0.1  # points nearer to the other camera's plane have no flow
_WEIGHTS = {
    "points": 1.0,
    "slope": 0.5,
    "pose": 4.0,
    "motion": 4.0,
    "flow": 2.0,
    "first": 0.3,
    "helper": 1.0,
}


class Helpers(nn.Module):
    """Heads that exist in training only."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.points_per_patch = (patch // _EVERY) ** 2
        self.dense = nn.Linear(width, 5 * self.points_per_patch)  # flow; place in first camera
        self.single = nn.Linear(width, 7)  # motion; camera height
        for layer in (self.dense, self.single):
            nn.init.normal_(layer.weight, std=0.1 * width**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Maps [N, 5, H / 4, W / 4] and single numbers [N, 7] from tokens [N, 1 + n, C]."""
        tokens = tokens.float()
        dense = self.dense(tokens[:, 1:]).mT.unflatten(2, grid)
        side = round(self.points_per_patch**0.5)
        return F.pixel_shuffle(dense, side), self.single(tokens[:, 0])


def quaternion(T: Tensor) -> Tensor:
    """Unit quaternions (w, x, y, z), w >= 0, of rotations by less than half a turn, [..., 4]."""
    r = T[..., :3, :3]
    w = (1 + r.diagonal(dim1=-2, dim2=-1).sum(-1)).clamp(min=1e-6).sqrt() / 2
    x = (r[..., 2, 1] - r[..., 1, 2]) / (4 * w)
    y = (r[..., 0, 2] - r[..., 2, 0]) / (4 * w)
    z = (r[..., 1, 0] - r[..., 0, 1]) / (4 * w)
    return F.normalize(torch.stack((w, x, y, z), dim=-1), dim=-1)


def inverse(T: Tensor) -> Tensor:
    """Inverse of rigid motions [..., 4, 4]."""
    rotation = T[..., :3, :3].mT
    top = torch.cat((rotation, -rotation @ T[..., :3, 3:]), dim=-1)
    return torch.cat((top, T[..., 3:, :]), dim=-2)


def window_losses(
    unrolled: Unrolled, windows: Windows, helpers: Helpers, pose_share: float = 1.0
) -> dict[str, Tensor]:
    """The parts of the loss by name, each a mean over what it is about, and their `total`.

    In the total, poses have this share of their weight.
    """
    batch, images = windows.image.shape[:2]
    prediction = unrolled.prediction
    rays = windows.rays()
    points = windows.depth_m[..., None] * rays[:, None]  # [B, T, H, W, 3]
    losses = point_losses(prediction.points, prediction.confidence, points.flatten(0, 1))

    pose = torch.unflatten(prediction.pose_matrix, 0, (batch, images))
    true_pose = windows.T_first_camera
    losses["pose"] = _pose_error(pose, true_pose)
    motion = inverse(true_pose[:, :-1]) @ true_pose[:, 1:]
    losses["motion"] = _pose_error(inverse(pose[:, :-1]) @ pose[:, 1:], motion)

    columns = round(((unrolled.tokens.shape[1] - 1) * WIDTH / HEIGHT) ** 0.5)
    dense, single = helpers(unrolled.tokens, (columns * HEIGHT // WIDTH, columns))
    dense, single = (x.unflatten(0, (batch, images)) for x in (dense, single))
    at = slice(_EVERY // 2, None, _EVERY)
    sparse = points[:, :, at, at]  # [B, T, H / 4, W / 4, 3]
    previous = _moved(sparse[:, 1:], motion)
    losses["flow"] = _flow_error(dense[:, 1:, :2], previous, windows.focal, at)
    first = _moved(sparse, true_pose).movedim(-1, 2)
    error = torch.linalg.vector_norm(dense[:, :, 2:] - first, dim=2)
    losses["first"] = (error / sparse[..., 2].sqrt()).mean()
    height = windows.T_world_first[:, None] @ true_pose
    told = torch.cat((10 * motion[..., :3, 3], 20 * quaternion(motion)[..., 1:]), dim=-1)
    losses["helper"] = (
        0.1 * (single[:, 1:, :6] - told).abs().mean()
        + 0.2 * (single[..., 6] - height[..., 2, 3]).abs().mean()
    )
    shares = {"pose": pose_share, "motion": pose_share}
    weighted = [_WEIGHTS[name] * shares.get(name, 1.0) * loss for name, loss in losses.items()]
    losses["total"] = torch.stack(weighted).sum()
    return losses


def point_losses(points: Tensor, confidence: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Errors of points [N, H, W, 3] under their confidence, and of their slopes."""
    depth = target[..., 2]
    error = torch.linalg.vector_norm(points - target, dim=-1) / depth.sqrt()
    # Edges and planes: differences between neighbours, of the logarithm of depth.
    wrong = points[..., 2].clamp(min=1e-2).log() - depth.log()
    slope = (wrong.diff(dim=1).abs().mean() + wrong.diff(dim=2).abs().mean()) / 2
    return {
        "points": (confidence * error - _CONFIDENCE_WEIGHT * confidence.log()).mean(),
        "slope": slope * 4,
    }


def _pose_error(pose: Tensor, target: Tensor) -> Tensor:
    translation = torch.linalg.vector_norm(pose[..., :3, 3] - target[..., :3, 3] + 1e-7, dim=-1)
    rotation = quaternion(pose) - quaternion(target)
    turn = torch.linalg.vector_norm(rotation + 1e-7, dim=-1)
    error = translation + _ROTATION_WEIGHT * turn
    # Linear at first, then its logarithm: far along a stream an image that is lost has nothing to
    # teach, and would drown what the others say.
    return (_POSE_REACH_M * torch.log1p(error / _POSE_REACH_M)).mean()


def _moved(points: Tensor, T: Tensor) -> Tensor:
    """Points [B, T, h, w, 3] in the frame that T [B, T, 4, 4] leads to."""
    rotated = torch.einsum("btij,bthwj->bthwi", T[..., :3, :3], points)
    return rotated + T[..., None, None, :3, 3]


def _flow_error(flow: Tensor, previous: Tensor, focal: Tensor, at: slice) -> Tensor:
    """Mean error in units of 8 pixels, where the other camera sees the point's direction."""
    cx, cy = principal_point()
    z = previous[..., 2]
    scale = focal[:, None, None, None] / z.clamp(min=_NEAREST_M)
    u = torch.arange(WIDTH, device=flow.device)[at] - cx
    v = torch.arange(HEIGHT, device=flow.device)[at] - cy
    du = previous[..., 0] * scale - u
    dv = previous[..., 1] * scale - v[:, None]
    target = torch.stack((du, dv), dim=2) / 8
    seen = (z > _NEAREST_M) & (target.abs().amax(dim=2) < 8)
    error: Tensor = torch.linalg.vector_norm(flow - target + 1e-7, dim=2)
    return (error * seen).sum() / seen.sum().clamp(min=1)
