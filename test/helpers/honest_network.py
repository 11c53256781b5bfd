# SPDX-License-Identifier: Apache-2.0
"""A network that knows the truth of a simple room, and says it in a unit of its own.

The room is a floor, z = 0, and four walls, painted with waves; its pictures are what a camera
without distortion sees. Each state remembers the image that it began with, so whoever steps another
state gets another pose.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from transforms3d.euler import euler2mat

from ttt3r_ros.config import Config, with_values
from ttt3r_ros.geometry import R_BODY_OPTICAL, Transform, inverse, transform
from ttt3r_ros.loading import Model
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame

CAMERA_HEIGHT_M, WALL_M = 1.2, 4.0
WIDTH, FOCAL = 128, 96.0  # of the network's image; the height is the frame's


def level_pose(x_m: float = 0.0, y_m: float = 0.0, yaw: float = 0.0) -> Transform:
    """T_world_camera of a level camera above the floor."""
    return transform(euler2mat(0, 0, yaw) @ R_BODY_OPTICAL, (x_m, y_m, CAMERA_HEIGHT_M))


def principal_point(height: int) -> tuple[float, float]:
    """Where the package takes it to be that of a camera that nothing is known of."""
    return (WIDTH - 1) / 2, (height - 1) / 2


def points_seen(T_world_camera: Transform, height: int, focal: float = FOCAL) -> np.ndarray:
    """Where the rays of a level camera meet the room, [H, W, 3] metres in its optical frame."""
    v, u = np.mgrid[:height, :WIDTH].astype(np.float64)
    cx, cy = principal_point(height)
    rays = np.stack(((u - cx) / focal, (v - cy) / focal, np.ones_like(u)), axis=-1)
    directions = rays @ T_world_camera[:3, :3].T
    start = T_world_camera[:3, 3]
    directions = np.where(directions == 0, 1e-9, directions)
    walls = (np.copysign(WALL_M, directions[..., :2]) - start[:2]) / directions[..., :2]
    floor = np.where(directions[..., 2] < 0, -start[2] / directions[..., 2], np.inf)
    depth = np.minimum(walls.min(axis=-1), floor)
    return rays * depth[..., None]


def picture_seen(T_world_camera: Transform, points: np.ndarray) -> np.ndarray:
    """The waves that the room is painted with, uint8 [H, W, 3]."""
    x, y, z = np.moveaxis(points @ T_world_camera[:3, :3].T + T_world_camera[:3, 3], -1, 0)
    waves = [np.sin(a * x + 1.3 * b * y + 1.7 * z + a) for a, b in ((2, 1.1), (1.4, 2.3), (3, 2))]
    return (127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


class HonestNetwork:
    """Stands in for `Network`."""

    config = SimpleNamespace(patch_size=16, enc_embed_dim=3)

    def __init__(self, unit_m: float = 1.0) -> None:
        self.unit_m = unit_m
        self._views: list[tuple[Transform, np.ndarray]] = []

    def frame(
        self, stamp_ns: int, T_world_camera: Transform, *, height: int = 96, focal: float = FOCAL
    ) -> Frame:
        """What the camera sees from there; the next image that is encoded is this one."""
        points = points_seen(T_world_camera, height, focal)
        self._views.append((T_world_camera, points))
        return Frame(stamp_ns, picture_seen(T_world_camera, points))

    def initial_state(self) -> RecurrentState:
        return RecurrentState(torch.full((1, 1, 1), -1.0), torch.zeros(1, 1, 2), torch.ones(1) > 0)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """[1, gh, gw, 4]: the picture, coarsely, and which image it is."""
        small = F.avg_pool2d(image, 16).permute(0, 2, 3, 1)
        return torch.cat((small, torch.full_like(small[..., :1], len(self._views) - 1.0)), dim=-1)

    def advance(
        self, state: RecurrentState, features: torch.Tensor, update: bool = True
    ) -> tuple[RecurrentState, Prediction]:
        now = int(features[0, 0, 0, 3])
        T_world_camera, points = self._views[now]
        first = [now if number < 0 else int(number) for number in state.tokens[:, 0, 0]]
        poses = np.stack([inverse(self._views[number][0]) @ T_world_camera for number in first])
        poses[:, :3, 3] /= self.unit_m
        batch = len(first)
        said = torch.from_numpy(points / self.unit_m).float().expand(batch, *points.shape)
        after = RecurrentState(
            torch.tensor(first, dtype=torch.float32)[:, None, None],
            state.memory,
            torch.zeros_like(state.fresh),
        )
        return after, Prediction(
            points=said,
            confidence=torch.full(said.shape[:3], 3.0),
            pose=torch.zeros(batch, 7),
            pose_matrix=torch.from_numpy(poses).float(),
            gain=torch.ones(batch, 1),
        )


def honest_tracker(network: HonestNetwork, **values) -> Tracker:
    config = with_values(Config(process_all_images=True, preprocessing="fast"), values)
    return Tracker(Model(network, torch.device("cpu"), WIDTH, {}, ""), config)
