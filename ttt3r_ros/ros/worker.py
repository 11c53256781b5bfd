# SPDX-License-Identifier: Apache-2.0
"""The thread that owns the pipeline and the accelerator: from waiting images to outputs."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

import torch
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from ttt3r_ros.camera_info import CameraModel
from ttt3r_ros.config import Config, NodeConfig
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.conversions import frame_from_image, stamp_ns
from ttt3r_ros.ros.mailbox import Mailbox
from ttt3r_ros.ros.outputs import Outputs
from ttt3r_ros.ros.stream import StreamCounter
from ttt3r_ros.ros.transforms import FrameConflict, Mount
from ttt3r_ros.types import FrameRejected, TrackingError

_WARNING_PERIOD_S = 5.0  # of repeated warnings about images
_LOSS_WARNING_PERIOD_S = 60.0
_MANY_LOST = 0.3  # share of the camera's images; beyond it the transport is at fault


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
        self._mailbox: Mailbox[Image | CompressedImage] = Mailbox(queue_size)
        self._counter = StreamCounter()
        self._mount: Mount | None = None
        self._mounted_frame = ""  # the camera frame that `_mount` is for
        self._last_stamp_ns = 0  # of the last tracked image
        self._sent_map: tuple[VoxelMap, int] = (pipeline.map, 0)  # which, after how many images
        self._map_requested = False
        self._thread = threading.Thread(target=self._work, name="ttt3r_worker", daemon=True)
        self._thread.start()

    def prepare(self, camera: CameraModel, find_mount: Callable[[str], Mount]) -> None:
        """Be told of the camera before `resume`; counts begin anew.

        Args:
            camera: what is known of the camera.
            find_mount: finds the mount of a camera frame; it may raise `FrameRejected`.
        """
        self._counter = StreamCounter()

        def change() -> None:
            self._camera, self._find_mount, self._mount = camera, find_mount, None

        self._mailbox.request(change)

    def resume(self) -> None:
        """Take images from now on."""
        self._mailbox.open()

    def pause(self) -> None:
        """Take no more images; those that wait are dropped."""
        self._counter.replaced(self._mailbox.shut())

    def end(self) -> None:
        """Wait for the image in work and end the thread."""
        self._mailbox.close()
        self._thread.join()

    def image(self, message: Image | CompressedImage) -> bool:
        """Leave an image; return whether it replaces one that was waiting."""
        self._counter.received(stamp_ns(message.header.stamp))
        replaces = self._mailbox.put(message)
        if replaces:
            self._counter.replaced()
        return replaces

    def reset(self, reason: str) -> None:
        """Reset before the next image."""
        self._mailbox.request(lambda: self._pipeline.reset(reason))

    def clock_jumped(self, now_ns: int) -> None:
        """Reset before the next image, unless the images' own stamps have told of the jump."""
        self._mailbox.request(lambda: self._pipeline.clock_jumped(now_ns))

    def configure(self, config: Config, node_config: NodeConfig) -> None:
        """Change settings before the next image."""

        def change() -> None:
            self._pipeline.config, self._node_config = config, node_config

        self._mailbox.request(change)

    def send_map(self) -> None:
        """Publish the map after the image in work, if it has changed."""
        if not self._map_requested:
            self._map_requested = True
            self._mailbox.request(self._take_map)

    # From here on: the worker's thread.

    def _work(self) -> None:
        while (item := self._mailbox.take()) is not None:
            if isinstance(item, (Image, CompressedImage)):
                self._process(item)
            else:
                item()

    def _process(self, message: Image | CompressedImage) -> None:
        try:
            frame = frame_from_image(message, self._camera, self._node_config.camera_frame)
            mount = self._mount_of(frame.frame_id, frame.stamp_ns)
            result = self._pipeline.process(frame)
        except (FrameRejected, TrackingError) as error:
            self._reject(message, error)
        except (FrameConflict, torch.OutOfMemoryError) as error:
            self._reject(message, error)
            self._in_executor(self._give_up, error)
        except Exception as error:  # whatever it is, the next image may be a good one
            self._log.error(traceback.format_exc())
            self._reject(message, error)
        else:
            self._last_stamp_ns = result.stamp_ns
            self._counter.processed()
            self._outputs.result(result, mount, self._pipeline.config, self._node_config)
            self._outputs.tracked(
                result,
                self._counter.counts(),
                latency_ms=(self._node.get_clock().now().nanoseconds - result.stamp_ns) / 1e6,
                map_points=len(self._pipeline.map),
                last_reset_reason=self._pipeline.last_reset_reason,
            )
            self._warn_of_loss()

    def _mount_of(self, camera_frame: str, stamp_ns: int) -> Mount:
        """Find the camera's mount at the first image, and again when the images' frame changes."""
        if self._mount is None or self._mounted_frame != camera_frame:
            mount = self._find_mount(camera_frame)
            self._pipeline.place_first_camera(mount.T_odom_first_camera)
            self._outputs.mount(mount, camera_frame, stamp_ns)
            self._mount, self._mounted_frame = mount, camera_frame
            self._log.info(f"camera {camera_frame} on {mount.base_frame}")
        return self._mount

    def _reject(self, message: Image | CompressedImage, error: Exception) -> None:
        self._counter.rejected()
        self._log.warning(f"image rejected: {error}", throttle_duration_sec=_WARNING_PERIOD_S)
        lost = isinstance(error, TrackingError)
        self._outputs.rejected(message.header, str(error), self._counter.counts(), lost=lost)

    def _warn_of_loss(self) -> None:
        counts = self._counter.counts()
        if counts.lost_estimated > _MANY_LOST * (counts.received + counts.lost_estimated):
            self._log.warning(
                f"{counts.lost_estimated} images were lost on the way, {counts.received} arrived: "
                "use compressed images, or see 'Large images' in docs/ros.md",
                throttle_duration_sec=_LOSS_WARNING_PERIOD_S,
            )

    def _take_map(self) -> None:
        """Copy the map for the executor's thread, which serialises it."""
        self._map_requested = False
        current = (self._pipeline.map, self._pipeline.map.images)
        if current != self._sent_map:
            self._sent_map = current
            self._in_executor(self._outputs.map, self._pipeline.map.cloud(), self._last_stamp_ns)

    def _in_executor(self, callback: Callable[..., None], *args: object) -> None:
        executor = self._node.executor
        if executor is not None:
            executor.create_task(callback, *args)
