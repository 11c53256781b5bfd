# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the pipeline and the accelerator: from waiting images to outputs.

Poses go out as soon as they are known. All else about an image, its way into the map, depth,
points and status, follows in a second thread, while the next image is tracked.
"""

from __future__ import annotations

import operator
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from ttt3r_ros.camera.camera_info import CameraModel
from ttt3r_ros.config import Config, NodeConfig
from ttt3r_ros.geometry import Transform
from ttt3r_ros.io.trajectory import subsample
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.conversions import frame_from_image, stamp_ns
from ttt3r_ros.ros.mailbox import Mailbox
from ttt3r_ros.ros.map_correction import MapCorrection
from ttt3r_ros.ros.masks import Masks
from ttt3r_ros.ros.outputs import Outputs
from ttt3r_ros.ros.robot_odometry import RobotOdometry
from ttt3r_ros.ros.saving import NothingToSaveError, take
from ttt3r_ros.ros.side_stream import SideStream
from ttt3r_ros.ros.stream import MANY_LOST, StreamCounter, StreamCounts
from ttt3r_ros.ros.transforms import Extrinsics, FrameConflict
from ttt3r_ros.types import Frame, FrameRejected, FrameResult, TrackingError

_WARNING_PERIOD_S = 5.0  # of repeated warnings about images
_LOSS_WARNING_PERIOD_S = 60.0
_CAMERA_WAIT_S = 1.0  # for the first camera_info; a driver may send it after its image

ImageMessage: TypeAlias = "Image | CompressedImage"


@dataclass(slots=True, eq=False)
class _Activation:
    """What belongs to the images between one activation of the node and its end."""

    camera: CameraModel
    masks: Masks
    find_extrinsics: Callable[[str], Extrinsics]
    odometry: RobotOdometry | None
    correction: MapCorrection | None  # None: odom -> base is ours; the executor's thread's
    counter: StreamCounter
    last_received_ns: int | None = None
    is_camera_awaited: bool = False
    extrinsics: Extrinsics | None = None
    extrinsics_frame: str = ""  # the camera frame that `extrinsics` is for


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An image in the mailbox."""

    activation: _Activation
    message: ImageMessage
    before_ns: int | None  # stamp of the image received before it


class Worker:
    """Takes images from a mailbox through the pipeline to the outputs.

    Its methods are for the executor's thread and never wait, but for `end`.
    """

    def __init__(
        self,
        node: Node,
        pipeline: Pipeline,
        outputs: Outputs,
        node_config: NodeConfig,
        queue_size: int,
        give_up: Callable[[Exception], None],
    ) -> None:
        """Start the thread; it takes no images before `resume`.

        Args:
            node: for its clock, its logger and its executor.
            pipeline: from now on the thread's alone.
            outputs: what results are published through.
            node_config: the settings in force.
            queue_size: images that may wait; a newer one replaces the oldest.
            give_up: called in the executor's thread after an error that will not pass.
        """
        self._node = node
        self._log = node.get_logger()
        self._pipeline = pipeline
        self._outputs = outputs
        self._node_config = node_config
        self._give_up = give_up
        self._mailbox: Mailbox[_Waiting] = Mailbox(queue_size)
        self._activation: _Activation | None = None
        self._last_stamp_ns = 0  # of the last tracked image
        # What told the last map and the last path sent from others. None: those of a worker before
        # may still be latched, so that empty ones are news.
        self._sent_map: tuple[int, int, int] | None = None
        self._sent_path: list[tuple[int, Transform]] | None = None
        self._requested: set[Callable[[], None]] = set()  # of the follower, and not begun yet
        self._followers = ThreadPoolExecutor(1, "ttt3r_follower")
        self._side_stream = SideStream(pipeline.model.device)  # the follower's
        self._following: Future[None] | None = None  # what follows on the image before
        self._thread = threading.Thread(target=self._work, name="ttt3r_worker", daemon=True)
        self._thread.start()

    def prepare(
        self,
        camera: CameraModel,
        masks: Masks,
        find_extrinsics: Callable[[str], Extrinsics],
        odometry: RobotOdometry | None,
    ) -> None:
        """Begin an activation: images may be left, but are not taken before `resume`.

        Args:
            camera: what is known of the camera.
            masks: of its images.
            find_extrinsics: finds the mount of a camera frame; it may raise `FrameRejected`.
            odometry: of the robot, if the scale or odom -> base comes from it.
        """
        is_foreign = self._node_config.odom_source == "tf"
        correction = MapCorrection(odometry) if odometry and is_foreign else None
        counter = StreamCounter(self._pipeline.config.time.max_gap_s)
        self._activation = _Activation(
            camera, masks, find_extrinsics, odometry, correction, counter
        )

    def resume(self) -> None:
        """Take images from now on."""
        self._mailbox.open()

    def pause(self) -> None:
        """End the activation; images that wait are dropped, that in work is not published."""
        self._mailbox.shut()
        activation, self._activation = self._activation, None
        if activation is not None:
            activation.camera.end_wait()

    def end(self) -> Pipeline:
        """Wait for the image in work and end the thread; return what is the caller's alone now."""
        self._mailbox.close()
        self._thread.join()
        return self._pipeline

    def image(self, message: ImageMessage) -> bool:
        """Leave an image; return whether it replaces one that was waiting."""
        activation = self._activation
        if activation is None:
            return False
        received_ns = stamp_ns(message.header.stamp)
        # No status may tell of the image and not yet of the one that it replaces.
        with activation.counter.at_once():
            activation.counter.received(received_ns)
            replaces = self._mailbox.put(_Waiting(activation, message, activation.last_received_ns))
            if replaces:
                activation.counter.replaced()
        activation.last_received_ns = received_ns
        return replaces

    def odometry_came(self) -> None:
        """Publish map -> odom of the images that have waited for it."""
        if self._activation is not None:
            self._guarded(partial(self._send_corrections, self._activation))

    def reset(self, reason: str) -> None:
        """Reset before the next image."""
        self._mailbox.request(lambda: self._pipeline.reset(reason))

    def clock_jumped(self, now_ns: int) -> None:
        """Reset before the next image, unless the images' own stamps have told of the jump.

        Images of before the jump that still wait are dropped: they would be told apart from those
        after it by another reset.
        """
        if self._activation is not None:
            dropped = self._mailbox.drop(lambda w: stamp_ns(w.message.header.stamp) > now_ns)
            self._activation.counter.replaced(dropped)
        self._mailbox.request(lambda: self._pipeline.clock_jumped(now_ns))

    def configure(self, config: Config, node_config: NodeConfig) -> None:
        """Change settings before the next image."""

        def change() -> None:
            self._pipeline.config, self._node_config = config, node_config

        self._mailbox.request(change)

    def save(self, what: str, done: Callable[[Path | Exception], None]) -> None:
        """Write something below `output_dir`: copied between two images, written beside the next.

        Args:
            what: one of `saving.SAVED`.
            done: called in another thread, with its path once it is whole, or what went wrong.
        """

        def copy() -> None:
            try:
                write = take(what, self._pipeline, self._node_config)
            except Exception as error:  # whatever it is, there has to be an answer
                done(error)
                if not isinstance(error, NothingToSaveError):
                    raise
            else:
                threading.Thread(target=_write, args=(write, done)).start()

        self._mailbox.request(copy)

    def send_map(self) -> None:
        """Publish the map with the last image in it, if it has changed."""
        self._request_once(self._take_map)

    def send_path(self) -> None:
        """Publish the path up to the last image, if it has changed."""
        self._request_once(self._take_path)

    @property
    def device(self) -> torch.device:
        """The accelerator, or the CPU."""
        return self._pipeline.model.device

    def counts(self) -> StreamCounts | None:
        """Return what the activation has counted so far, None outside of one."""
        return self._activation.counter.counts() if self._activation else None

    @property
    def base_frame(self) -> str:
        """The frame that poses are of, empty before the activation's first image."""
        extrinsics = self._activation and self._activation.extrinsics
        return extrinsics.base_frame if extrinsics else ""

    def _request_once(self, take: Callable[[], None]) -> None:
        if take not in self._requested:
            self._requested.add(take)
            self._followers.submit(self._guarded, take)

    # From here on: the worker's thread, or the follower's or the executor's where it says so.

    def _work(self) -> None:
        while (item := self._mailbox.take()) is not None:
            if isinstance(item, _Waiting):
                self._guarded(partial(self._process, item))
            else:
                self._wait_for_follower()
                self._guarded(item)
        self._followers.shutdown()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except torch.OutOfMemoryError as error:
            self._mailbox.shut()
            self._in_executor(self._give_up, error)
        except Exception:  # whatever it is, the next item may be a good one
            if self._node.context.ok():  # else the process is ending, and nothing is heard
                self._log.error(traceback.format_exc(), throttle_duration_sec=_WARNING_PERIOD_S)

    def _process(self, waiting: _Waiting) -> None:
        activation, message = waiting.activation, waiting.message
        try:
            frame = frame_from_image(message, self._node_config.camera_frame)
            self._await_camera(activation)
            if activation is not self._activation:  # it has ended meanwhile
                return
            frame = activation.camera.apply(replace(frame, mask=activation.masks.of(frame)))
            extrinsics = self._extrinsics_of(activation, frame)
            if activation.odometry:
                pose = activation.odometry.camera_pose(frame.stamp_ns, extrinsics)
                frame = replace(frame, T_odometry_camera=pose)
            result, merge = self._pipeline.track(frame, waiting.before_ns)
        except (FrameRejected, TrackingError) as error:
            self._reject(activation, message, error)
        except FrameConflict as error:
            self._mailbox.shut()
            self._reject(activation, message, error)
            self._in_executor(self._give_up, error)
        except Exception as error:
            self._reject(activation, message, error)
            raise
        else:
            self._last_stamp_ns = result.stamp_ns
            activation.counter.processed()
            try:
                if activation is self._activation:  # else it has ended meanwhile
                    self._outputs.pose(result, extrinsics, self._node_config)
                    if activation.correction is not None:
                        correct = partial(self._correct, activation, result, extrinsics)
                        self._in_executor(self._guarded, correct)
            finally:
                latency_ms = (self._node.get_clock().now().nanoseconds - result.stamp_ns) / 1e6
                counts = activation.counter.counts()
                follow = partial(
                    self._follow, activation, result, extrinsics, merge, counts, latency_ms
                )
                mark = self._side_stream.mark()
                self._wait_for_follower()
                self._following = self._followers.submit(
                    self._guarded, partial(self._on_side_stream, mark, follow)
                )

    def _on_side_stream(self, mark: torch.cuda.Event | None, work: Callable[[], None]) -> None:
        with self._side_stream.after(mark):
            work()

    def _follow(
        self,
        activation: _Activation,
        result: FrameResult,
        extrinsics: Extrinsics,
        merge: Callable[[], None],
        counts: StreamCounts,
        latency_ms: float,
    ) -> None:
        """Do all that an image's pose need not wait for; in the follower's thread."""
        merge()
        if activation is not self._activation:
            return
        self._outputs.points(result, self._pipeline.config, self._node_config)
        self._outputs.status(
            result,
            counts,
            latency_ms=latency_ms,
            map_points=len(self._pipeline.map),
            last_reset_reason=self._pipeline.last_reset_reason,
        )
        self._warn_of_loss(counts)

    def _correct(
        self, activation: _Activation, result: FrameResult, extrinsics: Extrinsics
    ) -> None:
        """Let a foreign odometry be corrected by an image; in the executor's thread."""
        if activation is self._activation and activation.correction is not None:
            activation.correction.add(result, extrinsics)
            self._send_corrections(activation)

    def _send_corrections(self, activation: _Activation) -> None:
        """Publish map -> odom of images that the odometry has come to; in the executor's."""
        config = self._node_config
        if activation.correction is None:
            return
        for correction in activation.correction.take():
            if correction.is_missed and config.publish_map_tf:
                activation.counter.without_odometry()
                self._log.warning(
                    f"TF: no {config.odom_frame} -> {correction.extrinsics.base_frame} at the time "
                    f"of the image, {correction.stamp_ns} ns: map -> odom stays as it was",
                    throttle_duration_sec=_WARNING_PERIOD_S,
                )
            if correction.T_map_odom is not None:
                self._outputs.correction(correction.T_map_odom, correction.stamp_ns, config)

    def _wait_for_follower(self) -> None:
        if self._following:
            self._following.result()

    def _await_camera(self, activation: _Activation) -> None:
        """Wait for the camera info before the first image, if somebody publishes it."""
        if activation.is_camera_awaited:
            return
        activation.is_camera_awaited = True
        topic = self._node.resolve_topic_name("camera_info")
        if self._node.count_publishers(topic) and not activation.camera.wait(_CAMERA_WAIT_S):
            self._log.warning(f"{topic}: published, but nothing came in {_CAMERA_WAIT_S:g} s")

    def _extrinsics_of(self, activation: _Activation, frame: Frame) -> Extrinsics:
        """Find the camera's mount at the first image, and again when the images' frame changes."""
        if activation.extrinsics is None or activation.extrinsics_frame != frame.frame_id:
            extrinsics = activation.find_extrinsics(frame.frame_id)
            self._pipeline.place_first_camera(extrinsics.T_odom_first_camera)
            self._outputs.extrinsics(extrinsics, frame.frame_id, frame.stamp_ns)
            activation.extrinsics, activation.extrinsics_frame = extrinsics, frame.frame_id
            self._log.info(f"camera {frame.frame_id} on {extrinsics.base_frame}")
        return activation.extrinsics

    def _reject(self, activation: _Activation, message: ImageMessage, error: Exception) -> None:
        activation.counter.rejected()
        self._wait_for_follower()  # statuses are in the order of the images
        self._log.warning(f"image rejected: {error}", throttle_duration_sec=_WARNING_PERIOD_S)
        lost = isinstance(error, TrackingError)
        counts = activation.counter.counts()
        self._outputs.rejected(message.header, str(error), counts, lost=lost)

    def _warn_of_loss(self, counts: StreamCounts) -> None:
        if counts.lost_share > MANY_LOST:
            self._log.warning(
                f"{counts.lost_estimated} images were lost on the way, {counts.received} arrived: "
                "use compressed images, or see 'Large images' in docs/ros.md",
                throttle_duration_sec=_LOSS_WARNING_PERIOD_S,
            )

    def _map_to_send(self) -> tuple[int, int, int]:
        """Return what tells the map that would be sent now from others."""
        shown = self._pipeline.config.map
        return self._pipeline.map.revision, shown.min_hits, shown.publish_max_points

    def _take_map(self) -> None:
        """Copy the map for the executor's thread, which serialises it; in the follower's."""
        self._requested.discard(self._take_map)
        current = self._map_to_send()
        if current != self._sent_map:
            self._sent_map = current
            _, min_hits, max_points = current
            with self._side_stream.after(None):  # images in the map have been waited for
                cloud = self._pipeline.map.cloud(min_hits, max_points)
            self._in_executor(self._outputs.map, cloud, self._last_stamp_ns)

    def _take_path(self) -> None:
        """Copy the path for the executor's thread, which makes messages of it; as `_take_map`."""
        self._requested.discard(self._take_path)
        activation = self._activation
        path = subsample(self._pipeline.trajectory(), self._node_config.path.max_poses)
        if activation is None or (path and activation.extrinsics is None):
            return
        sent = self._sent_path
        if sent is None or len(path) != len(sent) or any(map(operator.is_not, path, sent)):
            self._sent_path = path
            self._in_executor(self._outputs.path, path, activation.extrinsics, self._last_stamp_ns)

    def _in_executor(self, callback: Callable[..., None], *args: object) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.create_task(callback, *args)


def _write(write: Callable[[], Path], done: Callable[[Path | Exception], None]) -> None:
    try:
        path = write()
    except Exception as error:  # whatever it is, there has to be an answer
        done(error)
    else:
        done(path)
