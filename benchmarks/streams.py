# SPDX-License-Identifier: Apache-2.0
"""Rooms by seed with a camera on its path, and the segments of several films stepped together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ttt3r_ros.geometry import Intrinsics, Transform, rotation_vector
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState, Ttt3r, UpdateRule, find_update_rule
from ttt3r_ros.simulation import Rooms, make_rooms, make_trajectory, render
from ttt3r_ros.simulation.scene import FOCAL_SHARE
from ttt3r_ros.types import Frame

RATE_HZ = 10.0
NOISE = 0.01  # of the camera, colours being 0 to 1
_RENDERED_AT_ONCE = 4  # images of each room
_NS_PER_S = 1_000_000_000

Pictures = npt.NDArray[np.uint8]  # [F, H, W, 3]


class Shot(NamedTuple):
    """One image of each of R rooms, with its truth."""

    rgb: Tensor  # uint8 [R, H, W, 3]
    depth_m: Tensor  # [R, H, W]
    T_world_camera: Tensor  # float64 [R, 4, 4]


class Studio:
    """Rooms, each with a camera on its path.

    Attributes:
        rooms: R of them.
        path: where their cameras are.
        lenses: of their cameras; one for all, or one each.
        lens: the first of these.
    """

    def __init__(
        self,
        seeds: int | Sequence[int],
        width: int,
        loop_s: float | None = None,
        style: str = "robot",
        *,
        rooms: Rooms | None = None,
        focal_shares: Sequence[float] = (FOCAL_SHARE,),
    ) -> None:
        """Build them for pictures of `width` times three quarters of that, in pixels.

        Args:
            seeds: of rooms and paths.
            width: of the pictures.
            loop_s: as `make_trajectory`.
            style: as `make_trajectory`.
            rooms: others than those of `make_rooms`.
            focal_shares: focal lengths as shares of the width; one for all, or one each.

        Raises:
            ValueError: see `make_rooms` and `make_trajectory`.
        """
        self.rooms = make_rooms(seeds) if rooms is None else rooms
        self.path = make_trajectory(seeds, self.rooms, style, loop_s)
        height = 3 * width // 4
        centre = (width - 1) / 2, (height - 1) / 2
        self.lenses = [
            Intrinsics(share * width, share * width, *centre, width, height)
            for share in focal_shares
        ]
        self.lens = self.lenses[0]

    def render(
        self, T_world_camera: Tensor, rooms: Rooms | None = None, supersampling: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Return colours [R, F, H, W, 3] and depth in metres [R, F, H, W] from poses [R, F, 4, 4].

        Args:
            T_world_camera: the poses.
            rooms: R others than these.
            supersampling: as `render`.
        """
        pinholes = torch.tensor([(lens.fx, lens.fy, lens.cx, lens.cy) for lens in self.lenses])
        return render(
            self.rooms if rooms is None else rooms,
            T_world_camera,
            pinholes[:, None],
            self.lens.height,
            self.lens.width,
            supersampling=supersampling,
        )

    def look(self, numbers: Tensor, poses: Tensor, supersampling: int) -> tuple[Tensor, Tensor]:
        """Render the images of these numbers [F] from poses [R, F, 4, 4], as `render`."""
        return self.render(poses, supersampling=supersampling)

    def film(self, images: int, supersampling: int = 1, *, first: int = 0) -> Iterator[Shot]:
        """Yield so many images at `RATE_HZ`, from number `first` on."""
        end = first + images
        for start in range(first, end, _RENDERED_AT_ONCE):
            numbers = torch.arange(start, min(end, start + _RENDERED_AT_ONCE))
            poses = self.path.pose(numbers.double() / RATE_HZ)
            rgb, depth_m = self.look(numbers, poses, supersampling)
            for i in range(len(numbers)):
                yield Shot((255 * rgb[:, i]).round().byte(), depth_m[:, i], poses[:, i].double())


def frames(
    pictures: Iterable[Pictures], first_ns: int, rate_hz: float = RATE_HZ
) -> Iterator[Frame]:
    """Yield pictures [H, W, 3] as frames, the first one with the stamp `first_ns`."""
    period_ns = round(_NS_PER_S / rate_hz)
    for number, picture in enumerate(pictures):
        yield Frame(first_ns + number * period_ns, picture)


def network_input(rgb: Tensor, device: torch.device) -> Tensor:
    """Pictures uint8 [B, H, W, 3] as the network's images [B, 3, H, W]."""
    return rgb.permute(0, 3, 1, 2).to(device).float().div_(255).sub_(0.5).div_(0.5)


class Step(NamedTuple):
    """One image of B streams."""

    T_first_camera: Tensor  # float64 [B, 4, 4], in the frame of the streams' first cameras
    prediction: Prediction
    state: RecurrentState  # after the image
    T_first_segment: Tensor  # float64 [B, 4, 4]
    segment: int
    ends_segment: bool


class BatchTracker:
    """The tracker's segments for B streams that step together; a test compares the two."""

    def __init__(
        self,
        network: Network,
        rule: str,
        reset_interval: int,
        batch: int,
        counts_shared: bool = False,
    ) -> None:
        """Begin in front of the first images.

        Args:
            network: is given the rule at every step, so that several trackers can share it.
            rule: as `find_rule` knows it.
            reset_interval: images in a segment; 0: never reset.
            batch: number of streams.
            counts_shared: count the image that a segment shares with the one before among its
                own, unlike the tracker.
        """
        self._counts_shared = counts_shared
        self._network, self._rule = network, find_rule(rule)
        self._interval, self._batch = reset_interval, batch
        self._T_first_segment = torch.eye(4, dtype=torch.float64).expand(batch, 4, 4)
        self._segment = -1
        self._begin()

    def _begin(self) -> None:
        self._network.update_rule = self._rule
        self._state = self._network.initial_state(self._batch)
        self._images = 0  # of the segment
        self._segment += 1

    def step(self, features: Tensor) -> Step:
        """Take the features of one image per stream.

        Raises:
            ValueError: a pose that is not finite.
        """
        self._network.update_rule = self._rule
        self._state, prediction = self._network.advance(self._state, features)
        T_first_camera = self._T_first_segment @ _orthonormal(prediction.pose_matrix)
        self._images += 1
        ends = self._images == self._interval
        step = Step(
            T_first_camera, prediction, self._state, self._T_first_segment, self._segment, ends
        )
        if ends:
            self._begin()
            self._state, again = self._network.advance(self._state, features)
            T_segment_camera = _orthonormal(again.pose_matrix)
            self._T_first_segment = T_first_camera @ torch.linalg.inv(T_segment_camera)
            self._images = int(self._counts_shared)
        return step


def _orthonormal(T: Tensor) -> Tensor:
    """The nearest rigid transforms, as `geometry.orthonormal`, in float64 on the CPU."""
    T = T.double().cpu()
    if not T.isfinite().all():
        raise ValueError("the network's pose is not finite")
    u, _, vt = torch.linalg.svd(T[:, :3, :3])
    sign = torch.ones_like(u[:, 0])
    sign[:, 2] = torch.linalg.det(u @ vt)
    result = T.clone()
    result[:, :3, :3] = u @ torch.diag_embed(sign) @ vt
    return result


def find_rule(name: str) -> UpdateRule:
    """The update rule of a name; `ttt3r:0.5` is TTT3R's with that damping.

    Raises:
        ValueError: there is none.
    """
    rule, _, damping = name.partition(":")
    if not damping:
        return find_update_rule(name)
    if rule != "ttt3r":
        raise ValueError(f"rule: only ttt3r has a damping, got {name!r}")
    return Ttt3r(float(damping))


def lengths(error: Transform) -> tuple[float, float]:
    """How far a transform moves and turns, in metres and degrees."""
    angle = float(np.linalg.norm(rotation_vector(error)))
    return float(np.linalg.norm(error[:3, 3])), float(np.degrees(angle))
