# SPDX-License-Identifier: Apache-2.0
"""Image in, camera pose in odometry and map frame and points in the camera's frame out.

The tracker owns the recurrent state and the segments: stretches of images with one state, whose
poses are relative to the segment's first camera. A Sim(3), `T_odom_segment` and `scale`, ties them
to the odometry frame.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ttt3r_ros.appearance import Thumbnail, thumbnail
from ttt3r_ros.config import Config, ConfigError
from ttt3r_ros.covariance import UNKNOWN, Covariance, PoseCovariance, recognised_covariance
from ttt3r_ros.floor import floor_height
from ttt3r_ros.focal import robust_focal
from ttt3r_ros.geometry import Intrinsics, Transform, inverse, optical_mount, orthonormal
from ttt3r_ros.metric_scale import HeightScale
from ttt3r_ros.model import Model
from ttt3r_ros.network.acceleration import accelerated
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.odometry_scale import OdometryScale
from ttt3r_ros.preprocessing import (
    CropTransform,
    Mask,
    crop_transform,
    network_image,
    resize_mask,
)
from ttt3r_ros.relocalization import Relocalization, relocalize
from ttt3r_ros.seam import seam_scale
from ttt3r_ros.signals import SignalMeter
from ttt3r_ros.snapshots import Snapshot, SnapshotStore, describe
from ttt3r_ros.tracking_state import TrackingMonitor, TrackingState
from ttt3r_ros.types import Frame, FrameRejected, FrameResult, TrackedView, TrackingError

_UNRECOGNISED = "no place of the session has been recognised yet"
_TRIES = 5  # images of a segment in which a place is looked for
_WARM_UP_HEIGHT = 480  # of an image, in pixels
_FOCALS = 31  # images whose focal estimates the median is taken of


class _NetworkImage(TypedDict):
    """What `preprocessing` has to know of it."""

    image_size: int
    patch_size: int
    fit: str


@dataclass(slots=True)
class _Segment:
    """One recurrent state, and where the camera stood when it began."""

    number: int
    T_odom_segment: Transform
    scale: float  # metres per unit of the network
    state: RecurrentState
    seam: str  # why no image is shared with the segment before, else empty
    images: int = 0  # tracked, the shared one included
    written: int = 0  # into the state, the shared one not counted
    tries: int = 0  # at recognising a place
    begin_covariance: Covariance | None = None  # see `TrackedView`
    is_recognised: bool = False


class Tracker:
    """Steps the network once per image.

    Attributes:
        T_odom_first_camera: where the first camera after a reset stands; level and looking along
            +x of the odometry frame unless set. Takes effect at the next `reset`.
        monitor: what judged the last image, to be read.
        snapshots: the places that a lost camera is looked for in, to be read; see `recognise`.
        view: the last image as loops need it; None: it has no place.
    """

    def __init__(self, model: Model, config: Config) -> None:
        """Begin in front of the first image.

        Raises:
            ConfigError: `scale_source` needs a setting that is not given, or the device cannot have
                the `acceleration`.
        """
        self._model = model
        self._config = config
        try:
            self._network = accelerated(model.network, config.acceleration, model.device)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self._scale_source = _scale_source(config)
        self._min_confidence = config.confidence.min
        self._method = config.preprocessing
        if self._method == "auto":
            self._method = "exact" if config.every_frame else "fast"
        self._network_image = _NetworkImage(
            image_size=model.image_size,
            patch_size=model.network.config.patch_size,
            fit=config.fit,
        )
        self._reset_interval = config.segment.reset_interval
        if self._reset_interval < 0:
            self._reset_interval = int(model.settings.get("segment.reset_interval", 0))
        self.monitor = TrackingMonitor(config.tracking)
        self._meter = SignalMeter()
        self._covariance, self._map_covariance = PoseCovariance(), PoseCovariance()
        self._segment_covariance = PoseCovariance()  # since the segment began
        self.snapshots = SnapshotStore(max(1, config.recovery.snapshots))
        self._unseen: tuple[Mask | None, Tensor | None] = None, None  # of camera and network
        self.T_odom_first_camera = optical_mount()
        self.reset()

    def warm_up(self) -> None:
        """Let libraries choose, compile and record what they will, so that no image waits for it.

        It is done for images of 4:3; others wait at their first one. Looking for a place, with
        several streams at once, is not warmed up.
        """
        if self._model.device.type == "cpu" and self._config.acceleration != "compile":
            return  # nothing is chosen there
        black = np.zeros((_WARM_UP_HEIGHT, _WARM_UP_HEIGHT * 4 // 3, 3), np.uint8)
        image = network_image(black, self._model.device, method="fast", **self._network_image)
        with torch.inference_mode():
            features = self._network.encode(image.input)
            for update in (True, False) if self._config.motion_gate else (True,):
                _, prediction = self._network.advance(self._initial_state(), features, update)
        _numbers(prediction)  # waits for the device

    def reset(self) -> None:
        """Forget everything: a new state, a new origin at the next image."""
        self._segment = _Segment(
            0, self.T_odom_first_camera, self._config.scale, self._initial_state(), seam=""
        )
        self._T_odom_camera = self.T_odom_first_camera  # of the last image that was not LOST
        self._T_map_odom = np.eye(4)
        self._unrecognised = False  # no place of the snapshots given has been recognised yet
        self.snapshots.clear()
        self._images = 0  # that were not LOST
        self._meter.reset()
        self.monitor.reset()
        self._covariance.reset()
        self._map_covariance.reset()
        self._segment_covariance.reset()
        self.view: TrackedView | None = None
        self._size: tuple[int, ...] | None = None  # of the network's image
        self._written: Thumbnail | None = None  # of the last image in the state, with motion_gate
        self._focals: deque[float] = deque(maxlen=_FOCALS)
        self._scale_taken = False
        if self._scale_source:
            self._scale_source.reset()

    def place_first_camera(self, T_odom_camera: Transform) -> None:
        """Say where the first camera stands; only before the first image."""
        self.T_odom_first_camera = self._T_odom_camera = T_odom_camera
        self._segment.T_odom_segment = T_odom_camera

    def recognise(self, snapshots: Iterable[Snapshot]) -> None:
        """Track nothing before one of the places given is recognised, whose map goes on."""
        self.reset()
        places = list(snapshots)
        self.snapshots = SnapshotStore(max(1, len(places), self._config.recovery.snapshots))
        self.snapshots.restore(places)
        self._unrecognised = len(places) > 0

    def start_segment(self, seam: str) -> None:
        """Go on from the last pose with a new state; `seam` says why, if without a shared image."""
        last = self._segment
        number = last.number + 1
        if seam:
            self._written = None
            self._meter.new_segment()
            self.monitor.new_segment()
        if not last.images:  # nothing was tracked in it: it begins once more
            number, seam = last.number, last.seam
        self._segment = _Segment(
            number, self._T_odom_camera, last.scale, self._initial_state(), seam
        )
        self._take_scale()

    def check(self, frame: Frame) -> None:
        """Check that an image can be brought to the network's size; nothing else happens.

        Raises:
            FrameRejected: it cannot.
        """
        height, width = frame.rgb.shape[:2]
        try:
            crop_transform(width, height, **self._network_image)
        except ValueError as error:
            raise FrameRejected(str(error)) from error

    def step(self, frame: Frame) -> FrameResult:
        """Track one image that passes `check`.

        Raises:
            ValueError: the image does not pass `check`; nothing has changed.
            TrackingError: the network's answer is not finite; a new segment has begun.
        """
        started = time.perf_counter()
        image = network_image(
            frame.rgb, self._model.device, method=self._method, **self._network_image
        )
        crop, size = image.crop, image.input.shape[2:]
        if self._size not in (None, size):
            self.start_segment(f"image size changed to {frame.rgb.shape[1]}x{frame.rgb.shape[0]}")
            self._focals.clear()
        self._size = size

        segment = self._segment
        write = not self._config.motion_gate or self._is_news(image.rgb)
        with torch.inference_mode():
            features = self._network.encode(image.input)
            segment.state, prediction = self._network.advance(segment.state, features, update=write)
        T_segment_camera, mean_gain, median_confidence = self._download(prediction)
        rgb = image.rgb
        T_odom_camera = segment.T_odom_segment @ T_segment_camera
        points, confidence = segment.scale * prediction.points[0], prediction.confidence[0]
        focal = None
        if frame.intrinsics is None:
            focal = robust_focal(points, confidence, min_confidence=self._min_confidence)
        intrinsics = self._intrinsics(frame, crop, focal)
        signals = self._meter.measure(
            frame.stamp_ns, rgb, T_odom_camera, points, confidence, median_confidence, intrinsics
        )
        state, reason = self.monitor.judge(signals), self.monitor.reason
        found = None
        if state is not TrackingState.LOST and self._is_looking():
            segment.tries += 1
            if found := self._find_place(features, rgb, intrinsics):
                if not segment.images:
                    T_odom_camera = self._T_odom_camera
                self._come_back(found, T_odom_camera)
                prediction, median_confidence = found.prediction, found.median_confidence
                T_segment_camera = inverse(found.T_map_segment) @ found.T_map_camera
                points, confidence = segment.scale * prediction.points[0], prediction.confidence[0]
            elif self._unrecognised:
                state, reason = TrackingState.LOST, _UNRECOGNISED
        is_placed = state is not TrackingState.LOST and not self._is_looking()
        if state is TrackingState.LOST:
            self.start_segment(f"tracking was lost: {reason}")
        else:
            self._T_odom_camera = T_odom_camera
            self._images += 1
            segment.images += 1
            segment.written += write
            if focal is not None:
                self._focals.append(focal)
            self._compare_scale(frame, prediction, T_segment_camera)
            if state is TrackingState.TRACKING and is_placed and write and intrinsics:
                self._remember(
                    frame, features, points, confidence, rgb, intrinsics, median_confidence
                )
            full = write and segment.written == self._reset_interval
            # A snapshot's state may be an old one: where states are not to grow old, it has said
            # where the camera is, and a new one goes on.
            old = found and self._reset_interval
            if full or old or self._scale_is_news():
                self._share_image(frame, features, prediction)
        depth = math.nan if signals.depth is None else signals.depth
        self._covariance.update(self._T_odom_camera, signals, state, depth)
        T_map_camera = self._T_map_odom @ self._T_odom_camera
        self._map_covariance.update(T_map_camera, signals, state, depth)
        if found:
            self._map_covariance.set(T_map_camera, recognised_covariance(found.snapshot.depth_m))
        elif self._unrecognised:
            self._map_covariance.set(T_map_camera, UNKNOWN)
        self._segment_covariance.update(self._T_odom_camera, signals, state, depth)
        self._note_beginnings(segment, state)
        self.view = None
        if is_placed:
            self.view = TrackedView(
                stamp_ns=frame.stamp_ns,
                segment=segment.number,
                T_odom_segment=segment.T_odom_segment,
                T_odom_camera=self._T_odom_camera,
                T_map_odom=self._T_map_odom,
                begin_covariance=segment.begin_covariance,
                is_sure=state is TrackingState.TRACKING,
                recognised_in=found.snapshot.segment if found else None,
                features=features,
                rgb=rgb,
                intrinsics=intrinsics,
                depth_m=depth,
            )
        known = self._scale_source.estimate() if self._scale_source else None
        return FrameResult(
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            state=state,
            reason=reason,
            T_odom_camera=self._T_odom_camera,
            T_map_odom=self._T_map_odom,
            is_placed=is_placed,
            pose_covariance=self._covariance.pose,
            map_pose_covariance=self._map_covariance.pose,
            twist_covariance=self._covariance.twist,
            points=points,
            confidence=confidence,
            unseen=self._unseen_by_network(frame, crop),
            rgb=rgb,
            crop=crop,
            intrinsics=intrinsics,
            segment=segment.number,
            seam=segment.seam if found or state is TrackingState.INITIALIZING else "",
            images_since_reset=self._images,
            mean_gain=mean_gain,
            median_confidence=median_confidence,
            scale=segment.scale,
            scale_spread=known.spread if known else math.nan,
            step_s=time.perf_counter() - started,
        )

    def correct(self, T_new_old: Transform, covariance: Covariance) -> None:
        """Move the camera in the map between two images; odom stays as it is.

        Args:
            T_new_old: [4, 4], from where things of the segment are in the map to where they
                shall be.
            covariance: [6, 6] of the camera's pose in the map from now on.
        """
        self._T_map_odom = orthonormal(T_new_old @ self._T_map_odom)
        self._map_covariance.set(self._T_map_odom @ self._T_odom_camera, covariance)

    def _note_beginnings(self, segment: _Segment, state: TrackingState) -> None:
        """Say how sure the beginning of a segment is: of this image's own, or of the next one's."""
        begun = None
        if state is not TrackingState.LOST and segment.images == 1 and segment.seam:
            begun = segment  # alone: what was not seen of the way is in it by now
        elif self._segment is not segment and not self._segment.seam:
            begun = self._segment  # with this image
        if begun:
            begun.begin_covariance = self._segment_covariance.pose
            self._segment_covariance.set(self._T_odom_camera, np.zeros((6, 6)))

    def _unseen_by_network(self, frame: Frame, crop: CropTransform) -> Tensor | None:
        """Bring `unseen` to the network's image, once as long as the lens stays the same."""
        if frame.unseen is not self._unseen[0]:
            resized = None
            if frame.unseen is not None:
                resized = torch.from_numpy(resize_mask(frame.unseen, crop)).to(self._model.device)
            self._unseen = frame.unseen, resized
        return self._unseen[1]

    def _is_looking(self) -> bool:
        """Whether the segment began somewhere unknown, and a known place may still be recognised.

        Whoever uncovers a lens may be in the picture at first.
        """
        segment = self._segment
        began_alone = segment.seam != "" or self._unrecognised
        return (
            began_alone
            and not segment.is_recognised
            and segment.tries < _TRIES
            and len(self.snapshots) > 0
        )

    def _find_place(
        self, features: Tensor, rgb: npt.NDArray[np.uint8], intrinsics: Intrinsics | None
    ) -> Relocalization | None:
        with torch.inference_mode():
            return relocalize(
                self._model.network,
                features,
                rgb,
                intrinsics,
                self.snapshots,
                candidates=self._config.recovery.candidates,
            )

    def _come_back(self, found: Relocalization, T_odom_camera: Transform) -> None:
        """Go on from a snapshot's state: in odom where the camera is, in the map where it was."""
        segment = self._segment
        segment.state, segment.scale, segment.is_recognised = (
            found.state,
            found.snapshot.scale,
            True,
        )
        if self._scale_source:  # its samples are in the unit of the state that is left
            self._scale_source.reset()
            self._scale_taken = False
        self._T_map_odom = found.T_map_camera @ inverse(T_odom_camera)
        segment.T_odom_segment = inverse(self._T_map_odom) @ found.T_map_segment
        segment.seam = f"{segment.seam}; back in the map" if segment.seam else "back in the map"
        self._unrecognised = False
        self._meter.new_segment()  # what it measured was of the answer without the snapshot

    def _remember(
        self,
        frame: Frame,
        features: Tensor,
        points: Tensor,
        confidence: Tensor,
        rgb: npt.NDArray[np.uint8],
        intrinsics: Intrinsics,
        median_confidence: float,
    ) -> None:
        if not self._config.recovery.snapshots:
            return
        if self._scale_source and not self._scale_taken:
            return  # whoever came back here would be back in another unit
        segment = self._segment
        with torch.inference_mode():
            self.snapshots.offer(
                stamp_ns=frame.stamp_ns,
                segment=segment.number,
                state=segment.state,
                scale=segment.scale,
                T_map_segment=self._T_map_odom @ segment.T_odom_segment,
                T_map_camera=self._T_map_odom @ self._T_odom_camera,
                points=points,
                confidence=confidence,
                rgb=rgb,
                intrinsics=intrinsics,
                median_confidence=median_confidence,
                descriptor=describe(features, self._model.network.config.enc_embed_dim),
            )

    def _is_news(self, rgb: npt.NDArray[np.uint8]) -> bool:
        """Whether an image differs enough from the last one in the state to be written into it."""
        now, last = thumbnail(rgb), self._written
        if last is not None and np.abs(now - last).mean() < self._config.motion_gate:
            return False
        self._written = now
        return True

    def _share_image(self, frame: Frame, features: Tensor, prediction: Prediction) -> None:
        """Begin the next segment with the image just tracked, whose pose stays as it is."""
        self.start_segment(seam="")
        segment = self._segment
        segment.images = 1
        with torch.inference_mode():
            segment.state, again = self._network.advance(segment.state, features)
        if self._config.segment.scale_from == "seam":
            found = seam_scale(
                prediction.points[0], prediction.confidence[0], again.points[0], again.confidence[0]
            )
            if found.spread <= self._config.segment.max_scale_spread:
                segment.scale *= found.ratio
                if self._scale_source:
                    self._scale_source.unit_changed(found.ratio)
                    self._take_scale()
        # If the answer is not finite a segment without a shared image has begun; the image just
        # tracked keeps its pose.
        with suppress(TrackingError):
            T_segment_camera, _, _ = self._download(again)
            segment.T_odom_segment = self._T_odom_camera @ inverse(T_segment_camera)
            if isinstance(self._scale_source, OdometryScale):
                self._compare_scale(frame, again, T_segment_camera)

    def _compare_scale(
        self, frame: Frame, prediction: Prediction, T_segment_camera: Transform
    ) -> None:
        """Show the source of the scale what the network says in its own unit."""
        segment, source = self._segment, self._scale_source
        if isinstance(source, OdometryScale):
            place = T_segment_camera[:3, 3] / segment.scale
            source.add(frame.stamp_ns, segment.number, place, frame.T_odometry_camera)
        elif isinstance(source, HeightScale):
            points, confidence = prediction.points[0], prediction.confidence[0]
            # Of the two frames it is the map that is level even after a fall in the dark.
            T_map_camera = self._T_map_odom @ self._T_odom_camera
            floor = floor_height(
                points, confidence, T_map_camera, min_confidence=self._min_confidence
            )
            source.add(floor)

    def _trusted_scale(self) -> float | None:
        source = self._scale_source
        return source.trusted(self._config.max_scale_spread) if source else None

    def _scale_is_news(self) -> bool:
        """Whether a scale is known for the first time: it should not wait for a next segment."""
        return not self._scale_taken and self._trusted_scale() is not None

    def _take_scale(self) -> None:
        """Let the segment that begins have the scale that is known by now."""
        scale = self._trusted_scale()
        if scale is not None:
            self._meter.unit_changed(scale / self._segment.scale)
            self._segment.scale, self._scale_taken = scale, True

    def _initial_state(self) -> RecurrentState:
        with torch.inference_mode():
            return self._model.network.initial_state()

    def _download(self, prediction: Prediction) -> tuple[Transform, float, float]:
        """Return pose in metres, mean gain and median confidence."""
        values = _numbers(prediction)
        if not np.isfinite(values).all():
            self.start_segment("the network's answer was not finite")
            raise TrackingError("the network's answer is not finite; a new segment begins")
        T_segment_camera = orthonormal(values[:16].reshape(4, 4))
        T_segment_camera[:3, 3] *= self._segment.scale
        return T_segment_camera, float(values[16]), float(values[17])

    def _intrinsics(
        self, frame: Frame, crop: CropTransform, focal: float | None
    ) -> Intrinsics | None:
        """Carry known intrinsics to the network's image, or guess them from focal lengths."""
        if frame.intrinsics is not None:
            return crop.intrinsics(frame.intrinsics)
        focals = [*self._focals, *(() if focal is None else (focal,))]
        if not focals:
            return None
        focal, width, height = median(focals), crop.width, crop.height
        return Intrinsics(focal, focal, width // 2, height // 2, width, height)


def _numbers(prediction: Prediction) -> npt.NDArray[np.float64]:
    """Fetch pose matrix [16], mean gain and median confidence, 18 in all, in one transfer."""
    numbers = torch.cat(
        [
            prediction.pose_matrix[0].flatten(),
            prediction.gain.mean()[None],
            prediction.confidence.median()[None],
        ]
    )
    values: npt.NDArray[np.float64] = numbers.double().cpu().numpy()
    return values


def _scale_source(config: Config) -> OdometryScale | HeightScale | None:
    if config.scale_source == "odom":
        return OdometryScale()
    if config.scale_source == "camera_height":
        if not config.camera_height_m:
            raise ConfigError("camera_height_m: must be above 0 with scale_source camera_height")
        return HeightScale(config.camera_height_m)
    return None
