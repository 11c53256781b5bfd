# SPDX-License-Identifier: Apache-2.0
"""Depth that the node publishes beside the true depth of the same moment, as messages come."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeAlias

from sensor_msgs.msg import CompressedImage, Image

from ttt3r_ros.clients.reading import depth_of, rgb_of
from ttt3r_ros.evaluation.metrics.depth import DepthComparison, truth_window
from ttt3r_ros.evaluation.report.data import ExampleSampler, Floats
from ttt3r_ros.evaluation.report.pictures import make_example
from ttt3r_ros.geometry import CropTransform
from ttt3r_ros.recordings.pose_track import MAX_DIFFERENCE_S
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.types import FrameRejected

ImageMessage: TypeAlias = "Image | CompressedImage"

_log = logging.getLogger(__name__)

_MAX_DIFFERENCE_NS = round(1e9 * MAX_DIFFERENCE_S)
_TRUE_BYTES = 512 << 20  # kept for a node that is behind
_IMAGE_BYTES = 128 << 20


class LiveDepth:
    """Pairs depth images by their stamps, compares them, and keeps examples.

    The camera's images are for the examples, and for their size; all goes on without them.
    """

    def __init__(self, comparison: DepthComparison, examples: int, step: int) -> None:
        """Start with no image pairs.

        Args:
            comparison: gets the pairs.
            examples: that are kept at most.
            step: every n-th row and column of the truth is compared.
        """
        self.sampler = ExampleSampler(examples)
        self._compared = (slice(step // 2, None, step),) * 2
        self.expects_truth = False  # whether the node's depth waits for true depth
        self.rectified: Callable[[Floats], Floats] = lambda true_m: true_m  # of true depth
        self._comparison = comparison
        self._estimated: dict[int, Image] = {}  # by stamp, as long as the truth may come
        self._true = _Recent(_TRUE_BYTES)
        self._images = _Recent(_IMAGE_BYTES)
        self._camera_size: tuple[int, int] | None = None
        self._latest_true_ns = -1
        self._warned: set[str] = set()

    def add_image(self, image: ImageMessage) -> None:
        """Take an image of the camera."""
        if isinstance(image, Image):
            self._camera_size = (image.width, image.height)
        self._images.put(image)

    def add_true(self, image: ImageMessage) -> None:
        """Take a true depth image."""
        self._latest_true_ns = stamp_ns(image.header.stamp)
        if self._true.put(image):
            self._warn("the node is so far behind that true depth images had to be forgotten")
        self._compare()

    def add_estimated(self, image: Image) -> None:
        """Take a depth image of the node."""
        self._estimated[stamp_ns(image.header.stamp)] = image
        self._compare()

    def finish(self) -> None:
        """Compare what has waited for a truth still nearer in time."""
        self._compare(all_have_come=True)

    def _compare(self, *, all_have_come: bool = False) -> None:
        for stamp, estimated in [*self._estimated.items()]:
            if self.expects_truth and not all_have_come and self._latest_true_ns < stamp:
                continue
            del self._estimated[stamp]
            true = self._true.nearest(stamp)
            if true is None and self.expects_truth:
                continue
            try:
                depth_m = depth_of(estimated)
                true_m = None if true is None else self.rectified(depth_of(true))
            except FrameRejected as error:
                self._warn(f"depth images are not compared: {error}")
                continue
            if true_m is not None:
                # The truth is of the camera's whole view: without its images, it tells their size.
                camera_size = self._camera_size or true_m.shape[::-1]
                crop = crop_of(camera_size, depth_m.shape[::-1])
                self._comparison.add(depth_m, true_m[self._compared], crop)
            image = self._images.at(stamp)
            if image is not None and self.sampler.wants_next():
                self._show(stamp, image, depth_m, true_m)

    def _show(
        self, stamp: int, image: ImageMessage, depth_m: Floats, true_m: Floats | None
    ) -> None:
        try:
            rgb = rgb_of(image)
        except FrameRejected as error:
            self._warn(f"images are not shown: {error}")
            return
        crop = crop_of(rgb.shape[1::-1], depth_m.shape[::-1])
        seen = None if true_m is None else true_m[truth_window(crop, true_m.shape)]
        self.sampler.add(make_example(stamp, rgb[truth_window(crop, rgb.shape[:2])], depth_m, seen))

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            _log.warning("%s", text)


class _Recent:
    """Images in the order they came; the oldest go when all together are too large."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._images: OrderedDict[int, ImageMessage] = OrderedDict()

    def put(self, image: ImageMessage) -> bool:
        """Take an image; return whether others had to go for it."""
        stamp = stamp_ns(image.header.stamp)
        self._forget(stamp)
        self._images[stamp] = image
        self._bytes += len(image.data)
        too_large = self._bytes > self._most_bytes
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._images)))
        return too_large

    def at(self, stamp: int) -> ImageMessage | None:
        """Return the image of a stamp, if it is there, and forget it and those that came before."""
        image = self._images.get(stamp)
        while stamp in self._images:
            self._forget(next(iter(self._images)))
        return image

    def nearest(self, stamp: int) -> ImageMessage | None:
        """Do the same with the nearest image, if it is near enough."""
        near = min(self._images, key=lambda other: abs(other - stamp), default=None)
        if near is None or abs(near - stamp) > _MAX_DIFFERENCE_NS:
            return None
        return self.at(near)

    def _forget(self, stamp: int) -> None:
        image = self._images.pop(stamp, None)
        if image is not None:
            self._bytes -= len(image.data)


def crop_of(camera: Sequence[int], network: Sequence[int]) -> CropTransform:
    """Return how the network's image, of a known size, was cut out of the camera's.

    Args:
        camera: width and height of the camera's image.
        network: width and height of the network's.
    """
    scale = max(n / c for n, c in zip(network, camera, strict=True))
    (width, height), (columns, rows) = camera, network
    scaled = (round(scale * width), round(scale * height))
    return CropTransform(width, height, *scaled, "crop", columns, rows)
