# SPDX-License-Identifier: Apache-2.0
"""Image in, camera pose in odometry and map frame and points in the camera's frame out.

The tracker owns the segments and ties them to odom; `PlaceMemory` owns the keyframes and the search
for the camera among them, `Monitor` what is usual for the stream, `MetricScale` the scale.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from ttt3r_ros.camera.focal import FocalEstimator, robust_focal
from ttt3r_ros.camera.preprocessing import NetworkImage, Preprocessor
from ttt3r_ros.config import Config, ConfigError
from ttt3r_ros.geometry import Transform, inverse, optical_extrinsics, orthonormal
from ttt3r_ros.loading import Model
from ttt3r_ros.network.acceleration import accelerated
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.place_memory import PlaceMemory
from ttt3r_ros.relocalization.relocalize import Relocalization
from ttt3r_ros.tracking.covariance import UNKNOWN, Uncertainty, relocalized_covariance
from ttt3r_ros.tracking.monitor import Monitor
from ttt3r_ros.tracking.observation import Answer, Observation, read_answer
from ttt3r_ros.tracking.scale_source import MetricScale
from ttt3r_ros.tracking.segment import Segment
from ttt3r_ros.tracking.segment_scale import boundary_scale
from ttt3r_ros.tracking.signals import MotionGate, Signals
from ttt3r_ros.tracking.warm_up import warm_up
from ttt3r_ros.types import (
    Covariance,
    Frame,
    FrameRejected,
    FrameResult,
    TrackedView,
    TrackingError,
    TrackingState,
)

_NOT_RELOCALIZED = "no place of the session has been recognized yet"


class Tracker:
    """Steps the network once per image.

    Attributes:
        T_odom_first_camera: where the first camera after a reset stands; level and looking along
            +x of the odometry frame unless set. Takes effect at the next `reset`.
        monitor: what judged the last image, to be read.
        places: the keyframes that a lost camera is looked for in, to be read; see `resume_from`.
        view: the last image as loops need it; None: it has no place in the map.
        resets: how often everything was forgotten.
    """

    def __init__(self, model: Model, config: Config) -> None:
        """Set everything up for the first image.

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
        self._preprocessor = Preprocessor(
            model.device,
            model.image_size,
            patch_size=model.network.config.patch_size,
            fit=config.fit,
            method=config.resize_method,
        )
        self._reset_interval = config.segment.reset_interval
        if self._reset_interval < 0:
            self._reset_interval = model.reset_interval
        self.monitor = Monitor(config.tracking)
        self.places = PlaceMemory(model.network, config.recovery)
        self._scale = MetricScale(config)
        self._focal = FocalEstimator()
        self._motion_gate = MotionGate(config.motion_gate)
        self._uncertainty = Uncertainty()
        self.T_odom_first_camera = optical_extrinsics()
        self.resets = 0
        self._begin()

    def warm_up(self) -> None:
        """Step once, so that no image waits for what libraries do at first."""
        if self._model.device.type != "cpu" or self._config.acceleration == "compile":
            with_gate = self._config.motion_gate > 0
            warm_up(self._network, self._initial_state(), self._preprocessor, with_gate=with_gate)

    def reset(self) -> None:
        """Forget everything: a new state, a new origin at the next image."""
        self.resets += 1
        self._begin()

    def _begin(self) -> None:
        T_odom_camera = self.T_odom_first_camera
        self._segment = Segment(0, T_odom_camera, self._config.scale, self._initial_state())
        self._T_odom_camera = T_odom_camera  # of the last image that was not LOST
        self._T_map_odom = np.eye(4)
        self._images = 0  # that were not LOST
        self._size: tuple[int, ...] | None = None  # of the network's image
        self.view: TrackedView | None = None
        for part in (self.monitor, self._scale, self._motion_gate, self._uncertainty):
            part.reset()
        self.places.clear()
        self._focal.clear()

    def place_first_camera(self, T_odom_camera: Transform) -> None:
        """Say where the first camera stands; only before the first image."""
        self.T_odom_first_camera = self._T_odom_camera = T_odom_camera
        self._segment.T_odom_segment = T_odom_camera

    def resume_from(self, keyframes: Iterable[Keyframe]) -> None:
        """Track nothing before one of these keyframes is recognized, whose map goes on."""
        self.reset()
        self.places.restore(keyframes)

    def start_segment(self, boundary_reason: str) -> None:
        """Go on from the last pose with a new state; the reason says why no image is shared."""
        last = self._segment
        number = last.number + 1
        if boundary_reason:
            self._motion_gate.reset()
            self.monitor.new_segment()
        if not last.images:  # nothing was tracked in it: it begins once more
            number, boundary_reason = last.number, last.boundary_reason
        self._segment = Segment(
            number, self._T_odom_camera, last.scale, self._initial_state(), boundary_reason
        )
        self.places.begin_segment(is_alone=self._segment.is_alone)
        self._take_scale()

    def correct(self, T_new_old: Transform, covariance: Covariance) -> None:
        """Move the camera in the map between two images; odom stays as it is.

        Args:
            T_new_old: [4, 4], from where the segment is in the map to where it shall be.
            covariance: [6, 6] of the camera's pose in the map from now on.
        """
        self._T_map_odom = orthonormal(T_new_old @ self._T_map_odom)
        if self.view is not None:  # a camera that is lost is no surer than before
            self._uncertainty.map.set(self._T_map_odom @ self._T_odom_camera, covariance)

    def set_pose(self, T_map_camera: Transform, covariance: Covariance) -> None:
        """Take it from somebody where the last camera stands in the map; odom stays as it is.

        Args:
            T_map_camera: [4, 4].
            covariance: [6, 6] of it.
        """
        self.part_segment()
        self._T_map_odom = orthonormal(T_map_camera @ inverse(self._T_odom_camera))
        self._uncertainty.map.set(T_map_camera, covariance)
        self.places.end_search()

    def part_segment(self) -> None:
        """Let what was seen so far stay where it is in the map, wherever the camera moves there."""
        if self._segment.images:
            begin = self._uncertainty.begin_segment(self._T_odom_camera)
            self._segment = self._segment.parted(begin)

    def check(self, frame: Frame) -> None:
        """Check that an image can be brought to the network's size; nothing else happens.

        Raises:
            FrameRejected: it cannot.
        """
        try:
            self._preprocessor.plan(frame.rgb)
        except ValueError as error:
            raise FrameRejected(str(error)) from error

    def step(self, frame: Frame) -> FrameResult:
        """Track one image that passes `check`.

        Raises:
            ValueError: the image does not pass `check`; nothing has changed.
            TrackingError: the network's answer is not finite; a new segment has begun.
        """
        started = time.perf_counter()
        image = self._prepare(frame)
        seen = self._advance(frame, image)
        signals = self._judge(seen)
        self._relocalize(seen)
        if seen.state is TrackingState.LOST:
            self.start_segment(f"tracking was lost: {seen.reason}")
        else:
            self._go_on(seen)
        self._update_covariances(seen, signals)
        self.view = seen.view(self._T_odom_camera, self._T_map_odom, signals.depth)
        return self._result(seen, time.perf_counter() - started)

    def _prepare(self, frame: Frame) -> NetworkImage:
        """Bring an image to the network's size; one of another size begins a new segment."""
        image = self._preprocessor.image(frame.rgb)
        size = image.input.shape[2:]
        if self._size not in (None, size):
            self.start_segment(f"image size changed to {frame.rgb.shape[1]}x{frame.rgb.shape[0]}")
            self._focal.clear()
        self._size = size
        return image

    def _advance(self, frame: Frame, image: NetworkImage) -> Observation:
        """Step the network and read its answer."""
        segment = self._segment
        is_written = not self._config.motion_gate or self._motion_gate.lets_in(image.rgb)
        with torch.inference_mode():
            features = self._network.encode(image.input)
            segment.state, prediction = self._network.advance(
                segment.state, features, update=is_written
            )
        T_segment_camera, mean_gain, median_confidence = self._download(prediction)
        return Observation(
            frame=frame,
            image=image,
            segment=segment,
            features=features,
            prediction=prediction,
            is_written=is_written,
            points=segment.scale * prediction.points[0],
            T_segment_camera=T_segment_camera,
            T_odom_camera=segment.T_odom_segment @ T_segment_camera,
            mean_gain=mean_gain,
            median_confidence=median_confidence,
        )

    def _judge(self, seen: Observation) -> Signals:
        """Find out through which lens the image was taken, and whether the answer is to be used."""
        frame, crop = seen.frame, seen.image.crop
        if frame.intrinsics is not None:
            seen.intrinsics = crop.intrinsics(frame.intrinsics)
        else:
            min_confidence = self._config.confidence.min
            seen.focal = robust_focal(seen.points, seen.confidence, min_confidence=min_confidence)
            seen.intrinsics = self._focal.intrinsics(seen.focal, crop.width, crop.height)
        signals = self.monitor.observe(
            frame.stamp_ns,
            seen.image.rgb,
            seen.T_odom_camera,
            seen.points,
            seen.confidence,
            seen.median_confidence,
            seen.intrinsics,
        )
        seen.state, seen.reason = self.monitor.state, self.monitor.reason
        return signals

    def _relocalize(self, seen: Observation) -> None:
        """Look for the camera among the keyframes, if it is not known where it is in the map."""
        if seen.state is not TrackingState.LOST and self.places.is_searching:
            seen.found = self.places.find(seen.features, seen.image.rgb, seen.intrinsics)
            if seen.found:
                self._continue_from(seen.found, seen)
            elif self.places.must_relocalize:
                seen.state, seen.reason = TrackingState.LOST, _NOT_RELOCALIZED
        seen.is_localized = seen.state is not TrackingState.LOST and not self.places.is_searching

    def _continue_from(self, found: Relocalization, seen: Observation) -> None:
        """Go on from a keyframe's state: in odom where the camera is, in the map where it was."""
        segment = seen.segment
        if not segment.images:
            seen.T_odom_camera = self._T_odom_camera
        segment.state, segment.scale = found.state, found.keyframe.scale
        segment.relocalized()
        self._scale.reset()  # its samples are in the unit of the state that is left
        self._T_map_odom = found.T_map_camera @ inverse(seen.T_odom_camera)
        segment.T_odom_segment = inverse(self._T_map_odom) @ found.T_map_segment
        self.monitor.forget_view()  # what it measured was of the answer without the keyframe
        seen.prediction, seen.median_confidence = found.prediction, found.median_confidence
        seen.T_segment_camera = found.T_segment_camera
        seen.points = segment.scale * found.prediction.points[0]

    def _go_on(self, seen: Observation) -> None:
        """Take an image that is not LOST; then the next segment begins if it is time."""
        segment = seen.segment
        self._T_odom_camera = seen.T_odom_camera
        self._images += 1
        segment.images += 1
        segment.written += seen.is_written
        self._focal.add(seen.focal)
        T_map_camera = self._T_map_odom @ self._T_odom_camera
        self._scale.observe(seen.scale_observation(segment, T_map_camera))
        if seen.state is TrackingState.TRACKING and seen.is_localized and seen.is_written:
            self._remember(seen)
        is_full = seen.is_written and segment.written == self._reset_interval
        # A keyframe's state may be old: where states are not to grow old, a new one goes on.
        is_old = seen.found and self._reset_interval
        if is_full or is_old or self._scale.is_news:
            self._share_image(seen)

    def _remember(self, seen: Observation) -> None:
        """Offer a keyframe, unless whoever came back to it would be back in another unit."""
        if seen.intrinsics is None or self._scale.is_pending:
            return
        self.places.offer(seen.features, **seen.place(self._T_map_odom))

    def _share_image(self, seen: Observation) -> None:
        """Begin the next segment with the image just tracked, whose pose stays as it is."""
        self.start_segment(boundary_reason="")
        segment = self._segment
        segment.images = 1
        with torch.inference_mode():
            segment.state, again = self._network.advance(segment.state, seen.features)
        if self._config.segment.scale_from == "boundary":
            found = boundary_scale(
                seen.prediction.points[0], seen.confidence, again.points[0], again.confidence[0]
            )
            if found.spread <= self._config.segment.boundary_max_log_spread:
                segment.scale *= found.ratio
                self._scale.unit_changed(found.ratio)
                self._take_scale()
        # If the answer is not finite a segment without a shared image has begun; the image just
        # tracked keeps its pose.
        with suppress(TrackingError):
            T_segment_camera, _, _ = self._download(again)
            segment.T_odom_segment = self._T_odom_camera @ inverse(T_segment_camera)
            again_seen = replace(seen, prediction=again, T_segment_camera=T_segment_camera)
            T_map_camera = self._T_map_odom @ self._T_odom_camera
            self._scale.observe_shared(again_seen.scale_observation(segment, T_map_camera))

    def _take_scale(self) -> None:
        """Let the segment that begins have the scale that is known by now."""
        scale = self._scale.take()
        if scale is not None:
            self.monitor.unit_changed(scale / self._segment.scale)
            self._segment.scale = scale

    def _update_covariances(self, seen: Observation, signals: Signals) -> None:
        T_map_camera = self._T_map_odom @ self._T_odom_camera
        self._uncertainty.update(self._T_odom_camera, T_map_camera, signals, seen.state)
        if seen.found:
            known = relocalized_covariance(seen.found.keyframe.depth_m)
            self._uncertainty.map.set(T_map_camera, known)
        elif self.places.must_relocalize:
            self._uncertainty.map.set(T_map_camera, UNKNOWN)
        segment, now = seen.segment, self._segment
        if seen.state is not TrackingState.LOST and segment.images == 1 and segment.is_alone:
            # What was not seen of the way is in it by now.
            segment.begin_covariance = self._uncertainty.begin_segment(self._T_odom_camera)
        if now is not segment and not now.is_alone:  # it begins with this image
            now.begin_covariance = self._uncertainty.begin_segment(self._T_odom_camera)

    def _result(self, seen: Observation, step_s: float) -> FrameResult:
        segment = seen.segment
        is_boundary = seen.found or seen.state is TrackingState.INITIALIZING
        return FrameResult(
            stamp_ns=seen.frame.stamp_ns,
            frame_id=seen.frame.frame_id,
            state=seen.state,
            reason=seen.reason,
            T_odom_camera=self._T_odom_camera,
            T_map_odom=self._T_map_odom,
            is_localized=seen.is_localized,
            pose_covariance=self._uncertainty.odom.pose,
            map_pose_covariance=self._uncertainty.map.pose,
            twist_covariance=self._uncertainty.odom.twist,
            points=seen.points,
            confidence=seen.confidence,
            outside_fov=self._preprocessor.outside_fov(seen.frame.outside_fov, seen.image.crop),
            mask=seen.frame.mask,
            rgb=seen.image.rgb,
            pixels=seen.image.pixels,
            crop=seen.image.crop,
            intrinsics=seen.intrinsics,
            segment=segment.number,
            boundary_reason=segment.boundary_reason if is_boundary else "",
            resets=self.resets,
            images_since_reset=self._images,
            mean_gain=seen.mean_gain,
            median_confidence=seen.median_confidence,
            scale=segment.scale,
            scale_log_spread=self._scale.log_spread,
            step_s=step_s,
        )

    def _initial_state(self) -> RecurrentState:
        with torch.inference_mode():
            return self._model.network.initial_state()

    def _download(self, prediction: Prediction) -> Answer:
        """Fetch the answer, its pose in metres; one that is not finite begins a new segment."""
        answer = read_answer(prediction)
        if answer is None:
            self.start_segment("the network's answer was not finite")
            raise TrackingError("the network's answer is not finite; a new segment begins")
        T_segment_camera, mean_gain, median_confidence = answer
        T_segment_camera[:3, 3] *= self._segment.scale
        return Answer(T_segment_camera, mean_gain, median_confidence)
