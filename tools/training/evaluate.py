# SPDX-License-Identifier: Apache-2.0
"""How good a network is on rooms it has not seen, with segments chained as the tracker does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tools.training.clips import Windows
from tools.training.losses import inverse
from ttt3r_ros.network.model import Network


class Answers(NamedTuple):
    """What a network says about sequences."""

    depth_m: Tensor  # [B, T, H, W]
    confidence: Tensor  # [B, T, H, W]
    T_first_camera: Tensor  # [B, T, 4, 4]


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over sequences. Nothing is scaled; `ate` is after a rigid alignment."""

    abs_rel: float
    delta_125: float
    ate_8: float  # metres, over the first 8 images
    ate_16: float
    ate_all: float
    # The same errors as shares of those of a camera that never moves.
    ratio_8: float
    ratio_16: float
    ratio_all: float
    rotation: float  # between neighbours, as a share of the true rotation
    step: float  # likewise the translation
    confident: float  # share of pixels whose confidence is above 1.5
    confident_abs_rel: float


@torch.no_grad()
def run(network: Network, image: Tensor, reset_interval: int) -> Answers:
    """Run sequences [B, T, 3, H, W] with a new state every so many images; 0: never.

    The last image of a segment is the first one of the next, as in the tracker.
    """
    batch, images = image.shape[:2]
    state = network.initial_state(batch)
    T_first_segment = torch.eye(4, device=image.device).expand(batch, 4, 4)
    in_segment = 0
    depths, confidences, poses = [], [], []
    for t in range(images):
        features = network.encode(image[:, t])
        state, prediction = network.advance(state, features)
        pose = T_first_segment @ prediction.pose_matrix
        in_segment += 1
        if in_segment == reset_interval:
            state, again = network.advance(network.initial_state(batch), features)
            T_first_segment = pose @ inverse(again.pose_matrix)
            in_segment = 0
        depths.append(prediction.points[..., 2])
        confidences.append(prediction.confidence)
        poses.append(pose)
    return Answers(*(torch.stack(parts, dim=1) for parts in (depths, confidences, poses)))


def score(answers: Answers, windows: Windows) -> Scores:
    """Compare answers with what is true."""
    true = windows.T_first_camera
    relative = (answers.depth_m - windows.depth_m).abs() / windows.depth_m
    quotient = answers.depth_m.clamp(min=1e-3) / windows.depth_m
    good = answers.confidence > 1.5
    motion = inverse(answers.T_first_camera[:, :-1]) @ answers.T_first_camera[:, 1:]
    true_motion = inverse(true[:, :-1]) @ true[:, 1:]
    step_error = (motion - true_motion)[..., :3, 3].norm(dim=-1).mean()
    places, true_places = answers.T_first_camera[..., :3, 3], true[..., :3, 3]
    ate, ratio = {}, {}
    for images in (8, 16, true.shape[1]):
        error = position_error(places[:, :images], true_places[:, :images]).mean()
        constant = position_error(
            true_places[:, :1].expand(-1, images, -1), true_places[:, :images]
        )
        ate[images], ratio[images] = float(error), float(error / constant.mean())
    return Scores(
        abs_rel=float(relative.mean()),
        delta_125=float((torch.maximum(quotient, 1 / quotient) < 1.25).float().mean()),
        ate_8=ate[8],
        ate_16=ate[16],
        ate_all=ate[true.shape[1]],
        ratio_8=ratio[8],
        ratio_16=ratio[16],
        ratio_all=ratio[true.shape[1]],
        rotation=float(angle(inverse(motion) @ true_motion).mean() / angle(true_motion).mean()),
        step=float(step_error / true_motion[..., :3, 3].norm(dim=-1).mean()),
        confident=float(good.float().mean()),
        confident_abs_rel=float((relative * good).sum() / good.sum().clamp(min=1)),
    )


def angle(T: Tensor) -> Tensor:
    """Angles of rotations [..., 4, 4] in radians, exact for small ones."""
    sine = (T[..., :3, :3] - T[..., :3, :3].mT).flatten(-2).norm(dim=-1) / 8**0.5
    cosine = (T[..., :3, :3].diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def position_error(places: Tensor, true_places: Tensor) -> Tensor:
    """Root mean square distances [B] of places [B, T, 3] after the best rigid alignment."""
    a, b = (x.double() - x.double().mean(dim=1, keepdim=True) for x in (places, true_places))
    u, _, vt = torch.linalg.svd(a.mT @ b)
    sign = torch.ones_like(u[:, 0])
    sign[:, 2] = torch.linalg.det(u @ vt).sign()
    rotation = u @ torch.diag_embed(sign) @ vt
    offset: Tensor = a @ rotation - b
    return offset.square().sum(dim=-1).mean(dim=1).sqrt()
