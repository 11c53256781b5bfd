# SPDX-License-Identifier: Apache-2.0
"""What travels between the stages, and the errors that users are told.

`Frame` goes into the pipeline, `FrameResult` comes out of it. Nothing of the package is imported
but the ground floor, and neither torch nor OpenCV, so that every part can know these types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import CropTransform, Intrinsics, Transform

if TYPE_CHECKING:
    from torch import Tensor


NS_PER_S = 1_000_000_000

Mask = npt.NDArray[np.bool_]
"""[H, W], of the pixels of an image."""

_T = TypeVar("_T")

Covariance = npt.NDArray[np.float64]
"""[6, 6] in the order x y z, rotation about x, y, z, in m and rad; see `tracking.covariance`."""


class FrameRejected(ValueError):
    """An image that was not processed; the message names what is wrong with it."""


class TrackingError(RuntimeError):
    """The network gave no usable answer for an image; no pose exists for it."""


class CheckpointError(ValueError):
    """A file of weights that cannot be used; the message names the file and the reason."""


class EvaluationError(ValueError):
    """A comparison that cannot be made; the message says what to change."""


class ViewError(ValueError):
    """There is nothing to show, or nothing to show it with; the message says what to do."""


class BuildError(RuntimeError):
    """A package of messages could not be built; the message says what is wrong or missing."""


class SourceError(ValueError):
    """A recording that cannot be read; the message names the path and what to change."""


class SessionError(ValueError):
    """A session that cannot be written or used; the message names the folder and the reason."""


class TrackingState(IntEnum):
    """As the constants of msg/TrackingStatus."""

    INITIALIZING = 0  # the first image of a segment
    TRACKING = 1
    UNCERTAIN = 2  # the pose is to be used with care
    LOST = 3  # there is no pose


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of one camera.

    Raises:
        FrameRejected: the pixels are not uint8 [H, W, 3], or masks or intrinsics of another size.
    """

    stamp_ns: int  # of the image itself, nanoseconds
    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    intrinsics: Intrinsics | None = None  # of `rgb`; None: to be estimated
    frame_id: str = ""  # the camera's optical frame
    # [H, W] pixels that are left out of the map, as of people and the robot itself; None: none.
    mask: npt.NDArray[np.bool_] | None = None
    # [H, W] pixels that the lens does not show; None: none. Not to be changed.
    outside_fov: npt.NDArray[np.bool_] | None = None
    # The camera's pose by another odometry, in the frame of that; None: not known.
    T_odometry_camera: Transform | None = None

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise FrameRejected(
                f"image: expected uint8 [H, W, 3], got {self.rgb.dtype} {list(self.rgb.shape)}"
            )
        size = (self.rgb.shape[1], self.rgb.shape[0])
        for name in ("mask", "outside_fov"):
            mask = getattr(self, name)
            if mask is not None and mask.shape != self.rgb.shape[:2]:
                raise FrameRejected(
                    f"{name}: is {list(mask.shape)}, the image {list(self.rgb.shape[:2])}"
                )
        if self.intrinsics and (self.intrinsics.width, self.intrinsics.height) != size:
            raise FrameRejected(
                f"camera_info: is for {self.intrinsics.width}x{self.intrinsics.height}, "
                f"the image has {size[0]}x{size[1]}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class MapMoves:
    """How the map's segments move between two images, after a loop.

    Attributes:
        T_by_segment: [4, 4] from where things of a segment are in the map to where they shall be.
        numbers: segments that are known by another one's number from then on.
    """

    T_by_segment: Mapping[int, Transform]
    numbers: Mapping[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class TrackedView:
    """What an image that has its place in the map can be recognized by, and where it belongs."""

    stamp_ns: int
    segment: int
    T_odom_segment: Transform
    T_odom_camera: Transform
    T_map_odom: Transform
    # [6, 6] how unsure the segment's beginning is in the one before, with the rotations and
    # translations of that one's last image about the axes of odom; None: there is none before.
    begin_covariance: Covariance | None
    is_sure: bool  # whether it was tracked without anything odd
    relocalized_in: int | None  # the segment by a keyframe of which tracking went on here
    features: Tensor  # [1, gh, gw, E] from `Network.encode`
    rgb: npt.NDArray[np.uint8]  # [H, W, 3], what the network saw
    intrinsics: Intrinsics | None  # of that; None: too few good points to tell
    depth_m: float  # a typical one

    @property
    def T_map_camera(self) -> Transform:
        """The camera's pose in the map."""
        return self.T_map_odom @ self.T_odom_camera


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What is known after one image; tensors are still on the network's device.

    Nothing about the place of a LOST image is known: its pose is the last one before it.
    """

    stamp_ns: int
    frame_id: str
    state: TrackingState
    reason: str  # what is wrong with the image, else empty
    T_odom_camera: Transform  # camera: optical frame; translation in metres
    T_map_odom: Transform  # changes when a place is recognized, else the identity
    is_localized: bool  # its place in the map may be relied on: not LOST, nor still looked for
    pose_covariance: Covariance  # of T_odom_camera, see `covariance`
    map_pose_covariance: Covariance  # of T_map_camera
    twist_covariance: Covariance  # of the camera's velocity, in its own axes
    points: Tensor  # [H, W, 3] metres in the camera's optical frame
    confidence: Tensor  # [H, W], 1 to infinity
    outside_fov: Tensor | None  # bool [H, W], what the lens does not show; None: nothing of that
    mask: npt.NDArray[np.bool_] | None  # of the camera's image, see `Frame`
    rgb: npt.NDArray[np.uint8]  # [H, W, 3], what the network saw
    pixels: Tensor  # uint8 [H, W, 3], the same on the network's device
    crop: CropTransform  # how that came from the camera's image
    intrinsics: Intrinsics | None  # of the network's image; None: too few good points to tell
    segment: int  # count of recurrent states begun before this one, since the last reset
    boundary_reason: str  # why it shares no image, or went on elsewhere; empty: not begun here
    resets: int  # of the tracker before this image
    images_since_reset: int  # LOST ones do not count
    mean_gain: float  # mean over the state tokens of the state's update gain, 0 to 1
    median_confidence: float
    scale: float  # metres per unit of the network
    scale_log_spread: float  # of log(scale) by `scale_source`; NaN: nothing known, or fixed
    step_s: float  # time in the tracker, the device's work included
    moves: tuple[MapMoves, ...] = ()  # of the map, before the image's points come into it
    _computed: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def T_map_camera(self) -> Transform:
        """The camera's pose in the map."""
        return self.T_map_odom @ self.T_odom_camera

    def usable(self, min_confidence: float, max_depth_m: float) -> Tensor:
        """Return where depth is known, bool [H, W]; not to be changed.

        There it is seen, confident, finite, in front and near enough. As all that is asked for
        here it is computed once; one thread at a time may ask.
        """
        return self._once(("usable", min_confidence, max_depth_m), self._usable)

    def known_points(self, min_confidence: float, max_depth_m: float) -> npt.NDArray[np.float32]:
        """Download the points [H, W, 3], NaN where depth is not known."""
        return self._once(("points", min_confidence, max_depth_m), self._known_points)

    def depth_m(self, min_confidence: float, max_depth_m: float) -> npt.NDArray[np.float32]:
        """Download depth along z [H, W], NaN where it is not known."""
        limits = (min_confidence, max_depth_m)
        if ("points", *limits) in self._computed:
            return np.ascontiguousarray(self.known_points(*limits)[..., 2])
        depth: npt.NDArray[np.float32] = (
            self.points[..., 2].where(self.usable(*limits), np.nan).cpu().numpy()
        )
        return depth

    def host_confidence(self) -> npt.NDArray[np.float32]:
        """Download the confidence [H, W]."""
        return self._once(("confidence",), lambda: self.confidence.cpu().numpy())

    def _once(self, key: tuple[Any, ...], compute: Callable[..., _T]) -> _T:
        if key not in self._computed:
            self._computed[key] = compute(*key[1:])
        result: _T = self._computed[key]
        return result

    def _usable(self, min_confidence: float, max_depth_m: float) -> Tensor:
        depth = self.points[..., 2]
        good = (self.confidence >= min_confidence) & (depth > 0) & (depth <= max_depth_m)
        if self.outside_fov is not None:
            good &= ~self.outside_fov
        return good & self.confidence.isfinite() & self.points.isfinite().all(dim=-1)

    def _known_points(self, min_confidence: float, max_depth_m: float) -> npt.NDArray[np.float32]:
        usable = self.usable(min_confidence, max_depth_m)
        points: npt.NDArray[np.float32] = self.points.where(usable[..., None], np.nan).cpu().numpy()
        return points
