# SPDX-License-Identifier: Apache-2.0
"""What a simulated camera sees of its room at any time, with the faults of a real one if wanted.

Writing bags and publishing are not done here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ttt3r_ros.config import ConfigError
from ttt3r_ros.simulation.camera_path import make_trajectory
from ttt3r_ros.simulation.lens import render_distorted, undistort
from ttt3r_ros.simulation.movers import Movers
from ttt3r_ros.simulation.renderer import Rendering, add_noise, render
from ttt3r_ros.simulation.room import make_rooms
from ttt3r_ros.simulation.scene_options import SceneOptions

FOCAL_SHARE = 0.75  # of the width: 67 degrees from left to right
_SUBFRAMES = 9  # an odd number, so that the middle one is the moment of the stamp
_EXPOSURE_PERIOD_S = 8.0
_NOISE_PURPOSE, _EXPOSURE_PURPOSE = 4, 5


class View(NamedTuple):
    """What the camera sees at one time, and the truth."""

    rgb: Tensor  # [H, W, 3] uint8
    depth_m: Tensor  # [H, W] float32, along the optical axis
    T_world_camera: Tensor  # [4, 4] float64, of the optical frame


class Scene:
    """One camera in one room.

    Attributes:
        options: as given.
        lens: fx, fy, cx, cy in pixels.
    """

    def __init__(self, options: SceneOptions) -> None:
        """Build the room.

        Raises:
            ConfigError: there is no lens with this distortion.
        """
        self.options = options
        focal = FOCAL_SHARE * options.width
        self.lens = (focal, focal, (options.width - 1) / 2, (options.height - 1) / 2)
        room = make_rooms(options.seed)
        self._path = make_trajectory(options.seed, room, options.style, options.loop_s)
        x, y = torch.tensor(self.lens[2:], dtype=torch.float64) / focal  # of a corner
        try:
            undistort(x, y, *options.distortion)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self._movers = Movers(options.seed, room, options.moving)
        self._phase = float(_random(_EXPOSURE_PURPOSE, options.seed).uniform(-math.pi, math.pi))

    def view(self, t_s: float) -> View:
        """Return what is seen `t_s` seconds after the start; the same at every call."""
        options = self.options
        times = torch.tensor([t_s], dtype=torch.float64)
        if options.blur_s:
            share = (torch.arange(_SUBFRAMES) - _SUBFRAMES // 2) / _SUBFRAMES
            times = times + options.blur_s * share.double()
        poses = self._path.pose(times)[0]  # [F, 4, 4]
        seen = self._render(times, poses)
        middle = len(times) // 2
        rgb = seen.rgb.mean(dim=(0, 1)) * self.gain(t_s)
        rgb = rgb.clamp(0, 1)
        if options.noise:
            number = _random(_NOISE_PURPOSE, options.seed, round(t_s * 1e9)).integers(2**62)
            rgb = add_noise(rgb, options.noise, torch.Generator().manual_seed(int(number)))
        return View(
            (255 * rgb).round().to(torch.uint8), seen.depth_m[middle, 0], poses[middle].double()
        )

    def gain(self, t_s: float) -> float:
        """Return the factor of brightness at a time."""
        phase = 2 * math.pi * t_s / _EXPOSURE_PERIOD_S + self._phase
        return math.exp(self.options.exposure * math.sin(phase))

    def _render(self, times: Tensor, poses: Tensor) -> Rendering:
        """Render times [F] from poses [F, 4, 4]; everything movable is where it then is."""
        rooms = self._movers.at(times)
        size = (self.options.height, self.options.width)
        if any(self.options.distortion):
            return render_distorted(
                rooms, poses[:, None], self.lens, self.options.distortion, *size
            )
        return render(rooms, poses[:, None], self.lens, *size)


def _random(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
