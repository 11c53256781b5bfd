# SPDX-License-Identifier: Apache-2.0
"""What travels between the stages: `Frame` into the pipeline, `FrameResult` out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ttt3r_ros.covariance import Covariance
from ttt3r_ros.geometry import Intrinsics, Transform
from ttt3r_ros.preprocessing import CropTransform
from ttt3r_ros.tracking_state import TrackingState

if TYPE_CHECKING:
    from torch import Tensor


class FrameRejected(ValueError):
    """An image that was not processed; the message names what is wrong with it."""


class TrackingError(RuntimeError):
    """The network gave no usable answer for an image; no pose exists for it."""


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
    unseen: npt.NDArray[np.bool_] | None = None
    # The camera's pose by another odometry, in the frame of that; None: not known.
    T_odometry_camera: Transform | None = None

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise FrameRejected(
                f"image: expected uint8 [H, W, 3], got {self.rgb.dtype} {list(self.rgb.shape)}"
            )
        size = (self.rgb.shape[1], self.rgb.shape[0])
        for name in ("mask", "unseen"):
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
class TrackedView:
    """What an image that has its place in the map can be recognised by, and where it belongs."""

    stamp_ns: int
    segment: int
    T_odom_segment: Transform
    T_odom_camera: Transform
    T_map_odom: Transform
    # [6, 6] how unsure the segment's beginning is in the one before, with the rotations and
    # translations of that one's last image about the axes of odom; None: there is none before.
    begin_covariance: Covariance | None
    is_sure: bool  # whether it was tracked without anything odd
    recognised_in: int | None  # the segment by a place of which tracking went on here
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
    T_map_odom: Transform  # changes when a place is recognised, else the identity
    is_placed: bool  # its place in the map may be relied on: not LOST, nor still looked for
    pose_covariance: Covariance  # of T_odom_camera, see `covariance`
    map_pose_covariance: Covariance  # of T_map_camera
    twist_covariance: Covariance  # of the camera's velocity, in its own axes
    points: Tensor  # [H, W, 3] metres in the camera's optical frame
    confidence: Tensor  # [H, W], 1 to infinity
    unseen: Tensor | None  # bool [H, W], what the lens does not show; None: nothing of that
    rgb: npt.NDArray[np.uint8]  # [H, W, 3], what the network saw
    crop: CropTransform  # how that came from the camera's image
    intrinsics: Intrinsics | None  # of the network's image; None: too few good points to tell
    segment: int  # count of recurrent states begun before this one, since the last reset
    seam: str  # why a segment without a shared image begins, or went on elsewhere, here; else empty
    images_since_reset: int  # LOST ones do not count
    mean_gain: float  # mean over the state tokens of the state's update gain, 0 to 1
    median_confidence: float
    scale: float  # metres per unit of the network
    scale_spread: float  # of log(scale) by `scale_source`; NaN: nothing known, or fixed
    step_s: float  # time in the tracker, the device's work included

    @property
    def T_map_camera(self) -> Transform:
        """The camera's pose in the map."""
        return self.T_map_odom @ self.T_odom_camera

    def usable(self, min_confidence: float, max_depth_m: float) -> Tensor:
        """Return where depth is known, bool [H, W].

        There it is seen, confident, finite, in front and near enough.
        """
        depth = self.points[..., 2]
        good = (self.confidence >= min_confidence) & (depth > 0) & (depth <= max_depth_m)
        if self.unseen is not None:
            good &= ~self.unseen
        return good & self.confidence.isfinite() & self.points.isfinite().all(dim=-1)
