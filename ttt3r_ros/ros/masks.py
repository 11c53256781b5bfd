# SPDX-License-Identifier: Apache-2.0
"""Masks from the topic `mask`: which pixels of the camera's images stay out of the map."""

from __future__ import annotations

import logging
from collections import deque

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import Image

from ttt3r_ros.camera.decoding import decode_image
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.types import FrameRejected, Mask

_log = logging.getLogger(__name__)

ENCODINGS = ("mono8", "8UC1")
_KEPT = 100  # masks, for images that wait; a bit for each pixel
_SAME_NS = 10_000_000  # stamps that differ by less are of one moment
Bits = npt.NDArray[np.uint8]  # of a mask, row by row


class Masks:
    """The masks received last. Each holds from its stamp on until the next one comes.

    One that comes before any other holds for older images too: what masks the robot itself may be
    published once, with whatever stamp.
    """

    def __init__(self) -> None:
        self._masks: deque[tuple[int, tuple[int, int], Bits]] = deque(maxlen=_KEPT)
        self._warned: str = ""

    @property
    def in_use(self) -> str:
        """What the last one is; empty: there is none."""
        masks = self._masks.copy()
        if not masks:
            return ""
        _, (height, width), bits = masks[-1]
        share = np.unpackbits(bits, count=height * width).mean()
        return f"{width}x{height}, {share:.1%} of it"

    def update(self, message: Image) -> None:
        """Take a message; a bad one is not used, and a warning says why."""
        try:
            if message.encoding not in ENCODINGS:
                raise FrameRejected(f"encoding: {message.encoding!r} is not one of {ENCODINGS}")
            size = (message.height, message.width, message.step)
            grey = decode_image("mono8", *size, message.is_bigendian, message.data)[..., 0]
        except FrameRejected as error:
            self._warn(f"not used: {error}")
        else:
            bits = np.packbits(grey > 0)
            self._masks.append((stamp_ns(message.header.stamp), grey.shape, bits))

    def of(self, image_ns: int, shape: tuple[int, ...]) -> Mask | None:
        """Return the mask [H, W] of an image; None if there is none of its size.

        Args:
            image_ns: stamp of the image in nanoseconds.
            shape: of its pixels, [H, W, ...].
        """
        masks = self._masks.copy()  # the executor's thread may add one meanwhile
        if not masks:
            return None
        begun = [mask for mask in masks if mask[0] < image_ns + _SAME_NS]
        _, own, bits = begun[-1] if begun else masks[0]
        if own == shape[:2]:
            return np.unpackbits(bits, count=own[0] * own[1]).reshape(own).astype(bool)
        size, image_size = (f"{s[1]}x{s[0]}" for s in (own, shape))
        self._warn(f"not used: is {size}, the image {image_size}")
        return None

    def _warn(self, reason: str) -> None:
        if reason != self._warned:
            self._warned = reason
            _log.warning("mask: %s", reason)
