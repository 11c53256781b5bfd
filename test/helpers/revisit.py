# SPDX-License-Identifier: Apache-2.0
"""A simulated room that a camera goes through once and then sees again from almost the same place.

The room was fixed before anything was known of how it goes there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ttt3r_ros.geometry import Intrinsics, Transform, inverse, orthonormal, rotation_vector
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.types import Frame

SEED, ANOTHER_SEED, IMAGES, PERIOD_NS = 1_000_321, 1_000_322, 80, 100_000_000
AGAIN = 25  # the image whose place is seen again
LATE_S = 0.03  # not at the same moment of the path
# From the place that the map has: 5 cm and 2.3 degrees were measured at most. The map itself is
# wrong by what its path is wrong.
MOST_M, MOST_DEG = 0.15, 5.0


@dataclass(frozen=True, repr=False)
class View:
    """An image of the room, and where it was taken."""

    frame: Frame
    T_world_camera: Transform


class Room:
    """What a camera sees in it, by the time on its path."""

    def __init__(self, seed: int = SEED) -> None:
        self._scene = Scene(SceneOptions(seed=seed, width=128, height=96))
        self.camera = Intrinsics(*self._scene.lens, 128, 96)

    def view(self, t_s: float, stamp_ns: int) -> View:
        view = self._scene.view(t_s)
        frame = Frame(stamp_ns, view.rgb.numpy(), self.camera)
        return View(frame, orthonormal(view.T_world_camera.numpy()))

    def way(self) -> list[View]:
        return [self.view(i * PERIOD_NS / 1e9, i * PERIOD_NS) for i in range(IMAGES)]

    def again(self, first_stamp_ns: int, images: int = 4) -> list[View]:
        """Some images from a little after `AGAIN` on."""
        start_s = AGAIN * PERIOD_NS / 1e9 + LATE_S
        return [
            self.view(start_s + i * PERIOD_NS / 1e9, first_stamp_ns + i * PERIOD_NS)
            for i in range(images)
        ]


def error(
    T_map_then: Transform, then: View, T_map_now: Transform, now: View
) -> tuple[float, float]:
    """How far a pose is from where one of the first way puts it: metres and degrees."""
    true = inverse(then.T_world_camera) @ now.T_world_camera
    wrong = inverse(T_map_then @ true) @ T_map_now
    return float(np.linalg.norm(wrong[:3, 3])), float(
        np.degrees(np.linalg.norm(rotation_vector(wrong)))
    )
