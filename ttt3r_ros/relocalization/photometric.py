# SPDX-License-Identifier: Apache-2.0
"""Coloured points laid onto a picture: the pose from which they look as the picture does."""

from __future__ import annotations

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt3r_ros.geometry import Intrinsics

_BLURS = (4.0, 2.0, 1.0, 0.5)  # standard deviation as a share of a 32nd of the width: coarse first
_STRIDE = 2  # of the points that are used, both ways
_STEPS = 6  # with each
_HUBER = 0.5  # residuals beyond it count linearly; in standard deviations of the picture
_DAMPING = 1e-2  # share of the diagonal of the normal equations that is added
_NEAREST = 1e-3  # as a share of the median depth


def align(
    T_camera_points: Tensor, points: Tensor, rgb: Tensor, picture: Tensor, intrinsics: Intrinsics
) -> tuple[Tensor, Tensor]:
    """Improve poses by direct image alignment: Gauss-Newton over colours, coarse to fine.

    Brightness and contrast of a whole picture make no difference. A fixed number of steps is
    done, and nothing waits for the device.

    Args:
        T_camera_points: [K, 4, 4] first guesses: the points' frames in the picture's camera.
        points: [K, h, w, 3] in the optical frames of the cameras that saw them.
        rgb: [K, h, w, 3] their colours, 0 to 255.
        picture: [h, w, 3], 0 to 255.
        intrinsics: of all pictures.

    Returns:
        Poses [K, 4, 4], and for each the correlation [K] of the points' colours with those of the
        picture where they fall, -1 to 1; NaN where nothing is in view.
    """
    unit = intrinsics.width / 32
    pose = T_camera_points.float()
    points = points.float()
    known = points.isfinite().all(dim=-1, keepdim=True)
    points = torch.where(known, points, torch.zeros_like(points))
    sample = points[:, 1::_STRIDE, 1::_STRIDE].flatten(1, 2)  # [K, N, 3]
    points = points.flatten(1, 2)
    theirs = rgb.float().permute(0, 3, 1, 2)  # [K, 3, h, w]
    ours = picture.float().permute(2, 0, 1)[None]  # [1, 3, h, w]
    for blur in _BLURS:
        colours = _blurred(theirs, blur * unit)[..., 1::_STRIDE, 1::_STRIDE]
        colours = colours.flatten(2).transpose(1, 2)  # [K, N, 3]
        image = _blurred(ours, blur * unit)
        image = torch.cat((image, *torch.gradient(image, dim=(3, 2))), dim=1)  # by column, by row
        for _ in range(_STEPS):
            pose = _step(pose, sample, colours, image, intrinsics)
    colours = theirs.flatten(2).transpose(1, 2)
    return pose, correlation(pose, points, colours, ours, intrinsics)


def correlation(
    pose: Tensor, points: Tensor, colours: Tensor, image: Tensor, intrinsics: Intrinsics
) -> Tensor:
    """Correlate colours [K, N, 3] of points [K, N, 3] with an image [1, 3, h, w]: [K]."""
    _, pixels, inside = _projected(pose, points, intrinsics)
    seen, _ = _normalized(_looked_up(image, pixels, intrinsics), inside)
    wanted, _ = _normalized(colours, inside)
    return (seen * wanted * inside[..., None]).sum(dim=(1, 2)) / (3 * inside.sum(dim=1))


def _step(pose: Tensor, points: Tensor, colours: Tensor, image: Tensor, lens: Intrinsics) -> Tensor:
    moved, pixels, inside = _projected(pose, points, lens)
    looked_up = _looked_up(image, pixels, lens)  # [K, N, 9]
    seen, deviation = _normalized(looked_up[..., :3], inside)
    wanted, _ = _normalized(colours, inside)
    residual = seen - wanted  # [K, N, 3]
    slope = (
        torch.stack((looked_up[..., 3:6], looked_up[..., 6:]), dim=-1) / deviation[..., None, None]
    )
    x, y, z = moved.unbind(dim=-1)
    zero = torch.zeros_like(z)
    # How the pixel moves with the point [K, N, 2, 3], and the point with the pose [K, N, 3, 6].
    by_point = torch.stack(
        (
            torch.stack((lens.fx / z, zero, -lens.fx * x / z**2), dim=-1),
            torch.stack((zero, lens.fy / z, -lens.fy * y / z**2), dim=-1),
        ),
        dim=-2,
    )
    turning = torch.stack((zero, z, -y, -z, zero, x, y, -x, zero), dim=-1)
    turning = torch.unflatten(turning, -1, (3, 3))
    by_pose = torch.cat((torch.eye(3, device=z.device).expand_as(turning), turning), dim=-1)
    jacobian = slope @ (by_point @ by_pose)  # [K, N, 3, 6]
    weight = inside[..., None] * _HUBER / residual.abs().clamp(min=_HUBER)
    weighted = jacobian * weight[..., None]
    normal = torch.einsum("knci,kncj->kij", weighted, jacobian)
    right = torch.einsum("knci,knc->ki", weighted, residual)
    diagonal = normal.diagonal(dim1=1, dim2=2)
    normal = normal + torch.diag_embed(_DAMPING * diagonal + 1e-9)
    change, _ = torch.linalg.solve_ex(normal, -right)
    return _moved(change) @ pose


def _projected(pose: Tensor, points: Tensor, lens: Intrinsics) -> tuple[Tensor, Tensor, Tensor]:
    """Points in the picture's camera [K, N, 3], pixels [K, N, 2], and whether inside [K, N]."""
    nearest = _NEAREST * points[..., 2].median(dim=1, keepdim=True).values
    moved = points @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3]
    inside = (moved[..., 2] > nearest) & (points[..., 2] > 0)  # 0: not known
    moved = torch.where(inside[..., None], moved, torch.ones_like(moved))
    x, y, z = moved.unbind(dim=-1)
    column, row = lens.fx * x / z + lens.cx, lens.fy * y / z + lens.cy
    inside &= (column >= 0) & (column <= lens.width - 1) & (row >= 0) & (row <= lens.height - 1)
    return moved, torch.stack((column, row), dim=-1), inside


def _looked_up(image: Tensor, pixels: Tensor, lens: Intrinsics) -> Tensor:
    """Values [K, N, C] of an image [1, C, h, w] at pixels [K, N, 2]."""
    column, row = pixels.unbind(dim=-1)
    grid = torch.stack((2 * column / (lens.width - 1) - 1, 2 * row / (lens.height - 1) - 1), dim=-1)
    images = image.expand(len(pixels), *image.shape[1:])
    found = F.grid_sample(images, grid[:, :, None], padding_mode="border", align_corners=True)
    return found[..., 0].transpose(1, 2)


def _normalized(colours: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Colours [K, N, 3] less their means, over their standard deviation [K], of those inside."""
    weight = inside[..., None].float()
    count = weight.sum(dim=1, keepdim=True)
    centred = colours - (weight * colours).sum(dim=1, keepdim=True) / count
    variance = (weight * centred.square()).sum(dim=(1, 2)) / (3 * count[:, 0, 0])
    deviation = variance.sqrt()
    return centred / deviation[:, None, None], deviation[:, None]


def _moved(change: Tensor) -> Tensor:
    """Rigid transforms [K, 4, 4] of changes [K, 6]: a translation and a rotation vector."""
    zero = torch.zeros_like(change[:, 0])
    a, b, c = change[:, 3:].unbind(dim=1)
    cross = torch.stack((zero, -c, b, c, zero, -a, -b, a, zero), dim=1)
    cross = torch.unflatten(cross, 1, (3, 3))
    # Rodrigues; torch.linalg.matrix_exp would wait for the device.
    angle = change[:, 3:].norm(dim=1)[:, None, None]
    first, second = torch.sinc(angle / pi), torch.sinc(angle / (2 * pi)).square() / 2
    rotation = torch.eye(3, device=change.device) + first * cross + second * cross @ cross
    top = torch.cat((rotation, change[:, :3, None]), dim=2)
    bottom = torch.stack((zero, zero, zero, torch.ones_like(zero)), dim=1)[:, None]
    return torch.cat((top, bottom), dim=1)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of images [B, C, h, w]; the border is repeated."""
    reach = max(1, round(2.5 * sigma))
    x = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.softmax(-(x**2) / (2 * sigma**2), dim=0).expand(image.shape[1], 1, 1, -1)
    groups = image.shape[1]
    image = F.conv2d(F.pad(image, (reach, reach, 0, 0), mode="replicate"), kernel, groups=groups)
    image = F.pad(image, (0, 0, reach, reach), mode="replicate")
    return F.conv2d(image, kernel.transpose(2, 3), groups=groups)
