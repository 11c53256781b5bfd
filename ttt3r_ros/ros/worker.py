# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the pipeline and the accelerator: from waiting images to poses.

Poses go out as soon as they are known; all else about an image follows in `output_thread`, while
the next image is tracked.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from ttt3r_ros.camera.camera_info import CameraModel
from ttt3r_ros.config import Config, NodeConfig
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.pose_graph.exchange import LoopCounts
from ttt3r_ros.pose_graph.graph import PoseGraph
from ttt3r_ros.ros.activation import Activation
from ttt3r_ros.ros.conversions import decode, frame_id_of, image_stamp_ns, stamp_ns
from ttt3r_ros.ros.graph import GraphWatch
from ttt3r_ros.ros.mailbox import Mailbox
from ttt3r_ros.ros.map_correction import MapCorrection
from ttt3r_ros.ros.masks import Masks
from ttt3r_ros.ros.output_thread import OutputThread, call_in_executor
from ttt3r_ros.ros.outputs import Outputs
from ttt3r_ros.ros.robot_odometry import RobotOdometry
from ttt3r_ros.ros.saving import SAVED, NothingToSaveError, take
from ttt3r_ros.ros.stream import StreamCounter, StreamCounts
from ttt3r_ros.ros.told_pose import ToldPose
from ttt3r_ros.ros.transforms import Extrinsics, FrameConflict
from ttt3r_ros.types import Frame, FrameRejected, FrameResult, TrackingError

_WARNING_PERIOD_S = 5.0  # of repeated warnings about images
_CAMERA_WAIT_S = 1.0  # for the first camera_info; a driver may send it after its image

ImageMessage: TypeAlias = "Image | CompressedImage"


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An image in the mailbox."""

    activation: Activation
    message: ImageMessage
    before_ns: int | None  # stamp of the image received before it


class Worker:
    """Takes images from a mailbox through the pipeline, and gives them to the output thread.

    The public methods are for the executor's thread and never wait, but for `end`. Those with an
    underscore run in the worker's own, but for `_correct` and `_send_corrections` (the executor's)
    and `_guarded`, which any thread may call.
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
        self._activation: Activation | None = None
        self._graph = GraphWatch(pipeline.loops)
        self._told_pose: ToldPose | None = None  # since the last image; the worker's
        self._output = OutputThread(node, pipeline, outputs, node_config, self._guarded)
        self._writers = ThreadPoolExecutor(len(SAVED), "ttt3r_save")
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
            find_extrinsics: finds the extrinsics of a camera frame; it may raise `FrameRejected`.
            odometry: of the robot, if the scale or odom -> base comes from it.
        """
        is_foreign = self._node_config.odom_source == "tf"
        correction = MapCorrection(odometry) if odometry and is_foreign else None
        counter = StreamCounter(self._pipeline.config.time.max_gap_s)
        self._activation = Activation(camera, masks, find_extrinsics, odometry, correction, counter)

    def resume(self) -> None:
        """Take images from now on."""
        self._mailbox.open()

    def pause(self) -> None:
        """End the activation; images that wait are dropped, that in work is not published."""
        self._mailbox.shut()
        activation, self._activation = self._activation, None
        if activation is not None:
            activation.is_over = True
            activation.camera.end_wait()

    def end(self) -> Pipeline:
        """Wait for the image in work and for files, end; return what is the caller's alone now."""
        self._mailbox.close()
        self._thread.join()
        self._writers.shutdown()  # or they would answer a node that is gone
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

    def set_pose(self, told: ToldPose) -> None:
        """Let the base be there in the map when the next image comes."""

        def keep() -> None:
            self._told_pose = told  # where the camera is on the base is not known before an image

        self._mailbox.request(keep)

    def configure(self, config: Config, node_config: NodeConfig) -> None:
        """Change settings before the next image."""

        def change() -> None:
            self._pipeline.config = config
            self._node_config = self._output.node_config = node_config

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
                self._writers.submit(_write, write, done)

        self._mailbox.request(copy)

    def request(self, work: Callable[[Pipeline], None]) -> bool:
        """Let something be done with the pipeline before the next image, if any is to come.

        Returns:
            Whether it will be done: not once the thread is about to end.
        """
        return self._mailbox.request(lambda: work(self._pipeline))

    def send_map(self) -> None:
        """Publish the map with the last image in it, if it has changed."""
        self._output.send_map()

    def send_path(self) -> None:
        """Publish the path up to the last image, if it has changed."""
        self._output.send_path(self._activation)

    @property
    def device(self) -> torch.device:
        """The accelerator, or the CPU."""
        return self._pipeline.model.device

    def counts(self) -> StreamCounts | None:
        """Return what the activation has counted so far, None outside of one."""
        return self._activation.counter.counts() if self._activation else None

    @property
    def loops(self) -> LoopCounts:
        """What has become of questions about loops since the last reset."""
        return self._pipeline.loops.counts

    @property
    def graph(self) -> PoseGraph:
        """The pose graph after the last image or request; the same one until it changes."""
        return self._graph.latest

    @property
    def base_frame(self) -> str:
        """The frame that poses are of, empty before the activation's first image."""
        extrinsics = self._activation and self._activation.extrinsics
        return extrinsics.base_frame if extrinsics else ""

    def _work(self) -> None:
        while (item := self._mailbox.take()) is not None:
            if isinstance(item, _Waiting):
                self._guarded(partial(self._process, item))
            else:
                self._output.wait()
                self._guarded(item)
            self._graph.look()
        self._output.end()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except torch.OutOfMemoryError as error:
            self._mailbox.shut()
            call_in_executor(self._node, self._give_up, error)
        except Exception:  # whatever it is, the next item may be a good one
            if self._node.context.ok():  # else the process is ending, and nothing is heard
                self._log.error(traceback.format_exc(), throttle_duration_sec=_WARNING_PERIOD_S)

    def _process(self, waiting: _Waiting) -> None:
        activation, message = waiting.activation, waiting.message
        try:
            frame = self._frame(activation, message)
            if frame is None:  # the activation has ended meanwhile
                return
            if self._told_pose and activation.extrinsics:
                told, self._told_pose = self._told_pose, None
                self._pipeline.set_pose(*told.of_camera(activation.extrinsics))
            result = self._pipeline.track(frame, waiting.before_ns)
        except (FrameRejected, TrackingError) as error:
            self._reject(activation, message, error)
        except FrameConflict as error:
            self._mailbox.shut()
            self._reject(activation, message, error)
            call_in_executor(self._node, self._give_up, error)
        except Exception as error:  # its name: a MemoryError says nothing else
            self._reject(activation, message, RuntimeError(f"{type(error).__name__}: {error}"))
            raise
        else:
            activation.counter.processed()
            try:
                self._publish_pose(activation, result)
            finally:
                latency_ms = (self._node.get_clock().now().nanoseconds - result.stamp_ns) / 1e6
                counts = activation.counter.counts()
                self._output.image(activation, result, counts, self.loops, latency_ms)
            self._ask_for_loops()

    def _ask_for_loops(self) -> None:
        """Ask whether the image's place was seen before, now that its pose is out."""
        try:
            self._pipeline.ask_for_loops()
        except Exception:  # whatever it is, tracking does not need the answer
            self._log.error(
                f"loops: a question was given up:\n{traceback.format_exc()}",
                throttle_duration_sec=_WARNING_PERIOD_S,
            )

    def _frame(self, activation: Activation, message: ImageMessage) -> Frame | None:
        """Gather all that is known of an image; None if the activation has ended meanwhile."""
        frame_id = frame_id_of(message, self._node_config.camera_frame)
        activation.confirm_frame(frame_id)
        image_ns, raw = image_stamp_ns(message), decode(message)
        self._await_camera(activation)
        if activation.is_over:
            return None
        image = activation.camera.apply(raw, activation.masks.of(image_ns, raw.shape))
        extrinsics = self._extrinsics_of(activation, frame_id, image_ns)
        T_odometry_camera = None
        if activation.odometry:
            T_odometry_camera = activation.odometry.camera_pose(image_ns, extrinsics)
        return Frame(
            image_ns,
            frame_id=frame_id,
            T_odometry_camera=T_odometry_camera,
            **image._asdict(),
        )

    def _publish_pose(self, activation: Activation, result: FrameResult) -> None:
        extrinsics = activation.extrinsics
        if activation.is_over or extrinsics is None:
            return
        self._outputs.pose(result, extrinsics, self._node_config)
        if activation.correction is not None:
            correct = partial(self._correct, activation, result, extrinsics)
            call_in_executor(self._node, self._guarded, correct)

    def _correct(self, activation: Activation, result: FrameResult, extrinsics: Extrinsics) -> None:
        """Let a foreign odometry be corrected by an image; in the executor's thread."""
        if not activation.is_over and activation.correction is not None:
            activation.correction.add(result, extrinsics)
            self._send_corrections(activation)

    def _send_corrections(self, activation: Activation) -> None:
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

    def _await_camera(self, activation: Activation) -> None:
        """Wait for the camera info before the first image, if somebody publishes it."""
        if activation.is_camera_awaited:
            return
        activation.is_camera_awaited = True
        topic = self._node.resolve_topic_name("camera_info")
        if self._node.count_publishers(topic) and not activation.camera.wait(_CAMERA_WAIT_S):
            self._log.warning(f"{topic}: published, but nothing came in {_CAMERA_WAIT_S:g} s")

    def _extrinsics_of(self, activation: Activation, frame_id: str, image_ns: int) -> Extrinsics:
        """Find where the camera is on the robot, again when the images' frame changes."""
        if activation.extrinsics is None or activation.extrinsics_frame != frame_id:
            extrinsics = activation.find_extrinsics(frame_id)
            self._pipeline.place_first_camera(extrinsics.T_odom_first_camera)
            self._outputs.extrinsics(extrinsics, frame_id, image_ns)
            activation.extrinsics, activation.extrinsics_frame = extrinsics, frame_id
            self._log.info(f"camera {frame_id} on {extrinsics.base_frame}")
        return activation.extrinsics

    def _reject(self, activation: Activation, message: ImageMessage, error: Exception) -> None:
        activation.counter.rejected()
        self._log.warning(f"image rejected: {error}", throttle_duration_sec=_WARNING_PERIOD_S)
        self._output.rejected(
            message.header,
            str(error),
            activation.counter.counts(),
            is_lost=isinstance(error, TrackingError),
        )


def _write(write: Callable[[], Path], done: Callable[[Path | Exception], None]) -> None:
    try:
        path = write()
    except Exception as error:  # whatever it is, there has to be an answer
        done(error)
    else:
        done(path)
