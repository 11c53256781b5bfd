# SPDX-License-Identifier: Apache-2.0
"""One image on its way through the tracker, and what is downloaded of the network's answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ttt3r_ros.camera.preprocessing import NetworkImage
from ttt3r_ros.geometry import Intrinsics, Transform, orthonormal
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.relocalization.relocalize import Relocalization
from ttt3r_ros.tracking.scale_source import ScaleObservation
from ttt3r_ros.tracking.segment import Segment
from ttt3r_ros.types import Frame, TrackedView, TrackingState


@dataclass(slots=True, eq=False)
class Observation:
    """One image, and what the network has made of it so far."""

    frame: Frame
    image: NetworkImage
    segment: Segment  # of the image
    features: Tensor  # [1, gh, gw, E]
    prediction: Prediction  # in the network's unit
    is_written: bool  # into the state
    points: Tensor  # [H, W, 3] metres in the camera's optical frame
    T_segment_camera: Transform  # metres
    T_odom_camera: Transform
    mean_gain: float
    median_confidence: float
    focal: float | None = None  # that the image itself says, in pixels
    intrinsics: Intrinsics | None = None  # of the network's image
    state: TrackingState = TrackingState.LOST
    reason: str = ""  # what is wrong with it
    found: Relocalization | None = None
    is_localized: bool = False

    @property
    def confidence(self) -> Tensor:
        """[H, W], 1 to infinity."""
        return self.prediction.confidence[0]

    def view(
        self, T_odom_camera: Transform, T_map_odom: Transform, depth_m: float | None
    ) -> TrackedView | None:
        """What loops need to know of the image; None: it has no place in the map."""
        if not self.is_localized:
            return None
        return TrackedView(
            stamp_ns=self.frame.stamp_ns,
            segment=self.segment.number,
            T_odom_segment=self.segment.T_odom_segment,
            T_odom_camera=T_odom_camera,
            T_map_odom=T_map_odom,
            begin_covariance=self.segment.begin_covariance,
            is_sure=self.state is TrackingState.TRACKING,
            relocalized_in=self.found.keyframe.segment if self.found else None,
            features=self.features,
            rgb=self.image.rgb,
            intrinsics=self.intrinsics,
            depth_m=math.nan if depth_m is None else depth_m,
        )

    def place(self, T_map_odom: Transform) -> dict[str, Any]:
        """What a keyframe of the image consists of, by the names of `KeyframeStore.offer`."""
        segment = self.segment
        return {
            "stamp_ns": self.frame.stamp_ns,
            "segment": segment.number,
            "state": segment.state,
            "scale": segment.scale,
            "T_map_segment": T_map_odom @ segment.T_odom_segment,
            "T_map_camera": T_map_odom @ self.T_odom_camera,
            "points": self.points,
            "confidence": self.confidence,
            "rgb": self.image.rgb,
            "intrinsics": self.intrinsics,
            "median_confidence": self.median_confidence,
        }

    def scale_observation(self, segment: Segment, T_map_camera: Transform) -> ScaleObservation:
        """What the image shows of a segment's scale, in the network's unit."""
        return ScaleObservation(
            stamp_ns=self.frame.stamp_ns,
            segment=segment.number,
            p_segment_camera=self.T_segment_camera[:3, 3] / segment.scale,
            T_odometry_camera=self.frame.T_odometry_camera,
            T_map_camera=T_map_camera,
            points=self.prediction.points[0],
            confidence=self.prediction.confidence[0],
        )


class Answer(NamedTuple):
    """The few numbers of a prediction that the CPU needs."""

    T_segment_camera: Transform  # in the network's unit
    mean_gain: float
    median_confidence: float


def read_answer(prediction: Prediction) -> Answer | None:
    """Fetch the numbers in one transfer, which waits for the device; None: not all are finite."""
    numbers = torch.cat(
        [
            prediction.pose_matrix[0].flatten(),
            prediction.gain.mean()[None],
            prediction.confidence.median()[None],
        ]
    )
    values = numbers.double().cpu().numpy()
    if not np.isfinite(values).all():
        return None
    return Answer(orthonormal(values[:16].reshape(4, 4)), float(values[16]), float(values[17]))
