# SPDX-License-Identifier: Apache-2.0
"""Faults of a camera, put into good pictures or into the path they are taken from.

A fault lasts from picture `first` to the one before `stop`; those outside stay as they are. What
is random depends on the seed alone. Noise, blur and exposure of a sound camera are `scene`'s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ttt3r_ros.simulation.camera_path import Trajectory

Pictures = npt.NDArray[np.uint8]  # [F, H, W, 3]
PictureFault = Callable[[Pictures, int, int, int], Pictures]

_PURPOSE = 6
_SENSOR_NOISE = 2.0  # grey levels, in the dark
_LIGHT_LEFT = 0.03
_BLUR = 0.25  # of the width: 17 degrees of a turn while the shutter is open
_JUMPS_S = torch.arange(5.0, 65.0, 1.0, dtype=torch.float64)


def covered(rgb: Pictures, first: int, stop: int, seed: int) -> Pictures:
    """Cover the lens: nearly black, the same at every pixel but for the sensor's noise."""
    level = np.random.default_rng((_PURPOSE, seed)).uniform(4, 16)
    return _replaced(rgb, first, stop, _noisy(np.full_like(rgb[first:stop], level), seed))


def lights_off(rgb: Pictures, first: int, stop: int, seed: int) -> Pictures:
    """Switch the lights off: 3 % of the light is left, in the same noise as before."""
    return _replaced(rgb, first, stop, _noisy(_LIGHT_LEFT * rgb[first:stop], seed))


def pure_noise(rgb: Pictures, first: int, stop: int, seed: int) -> Pictures:
    """Send noise, every value as likely as any other and new in each picture."""
    generator = np.random.default_rng((_PURPOSE, seed))
    noise = generator.integers(0, 256, rgb[first:stop].shape, np.uint8)
    return _replaced(rgb, first, stop, noise)


def frozen(rgb: Pictures, first: int, stop: int, seed: int = 0) -> Pictures:
    """Hang: the last picture before the fault is sent again and again."""
    return _replaced(rgb, first, stop, np.broadcast_to(rgb[first - 1], rgb[first:stop].shape))


def blurred(rgb: Pictures, first: int, stop: int, seed: int = 0) -> Pictures:
    """Smear the pictures sideways, over a quarter of their width."""
    width = rgb.shape[2]
    reach = max(1, round(_BLUR * width / 2))
    padded = np.pad(rgb[first:stop], ((0, 0), (0, 0), (reach + 1, reach), (0, 0)), mode="edge")
    total = padded.astype(np.int64).cumsum(axis=2)
    mean = (total[:, :, -width:] - total[:, :, :width]) / (2 * reach + 1)
    return _replaced(rgb, first, stop, mean)


PICTURE_FAULTS: dict[str, PictureFault] = {
    "covered": covered,
    "lights off": lights_off,
    "noise": pure_noise,
    "frozen": frozen,
    "blur": blurred,
}
"""Those that need no other view of the room, by name."""


def turned(T_world_camera: Tensor, first: int) -> Tensor:
    """Turn the camera by 180 degrees where it stands, from picture `first` on to the end.

    Args:
        T_world_camera: [..., F, 4, 4].
        first: at least 1.
    """
    half_turn = torch.diag(T_world_camera.new_tensor([-1.0, -1.0, 1.0]))  # about the vertical
    poses = T_world_camera.clone()
    poses[..., first:, :3, :3] = half_turn @ poses[..., first:, :3, :3]
    return poses


def kidnapped(path: Trajectory, t_s: Tensor, first: int) -> Tensor:
    """Carry the camera away between two pictures, to a distant place of its own path.

    From picture `first` on the path is followed from 5 to 64 s later, whichever is farthest.

    Args:
        path: of R cameras.
        t_s: [F] seconds.
        first: at least 1.

    Returns:
        T_world_camera, [R, F, 4, 4].
    """
    here = path.pose(t_s[first : first + 1])[..., :3, 3]  # [R, 1, 3]
    there = path.pose(t_s[first] + _JUMPS_S)[..., :3, 3]  # [R, J, 3]
    jump_s = _JUMPS_S[(there - here).norm(dim=-1).argmax(dim=1)]  # [R]
    moved = torch.arange(len(t_s)) >= first
    return path.pose(t_s + jump_s[:, None] * moved)


def _noisy(rgb: npt.NDArray[np.floating] | Pictures, seed: int) -> npt.NDArray[np.float64]:
    noise = np.random.default_rng((_PURPOSE, seed, 1)).normal(0, _SENSOR_NOISE, rgb.shape)
    return rgb + noise


def _replaced(rgb: Pictures, first: int, stop: int, part: npt.NDArray[np.generic]) -> Pictures:
    """The pictures with others from `first` to `stop`.

    Raises:
        ValueError: no picture is left before the fault, or it ends before it begins or too late.
    """
    if not 1 <= first < stop <= len(rgb):
        raise ValueError(
            f"first, stop: expected 1 <= first < stop <= {len(rgb)}, got {first}, {stop}"
        )
    result = rgb.copy()
    result[first:stop] = np.clip(np.rint(part), 0, 255)
    return result
