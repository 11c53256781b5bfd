# SPDX-License-Identifier: Apache-2.0
"""Bags whose images, stamps and intrinsics are known."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_JAZZY)


T = TYPES.types


HEIGHT, WIDTH = 12, 16


START_NS = 1_700_000_000_000_000_000


PERIOD_NS = 33_333_333


def picture(index):
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([8 * u + index, 8 * v, 200 - u - v], -1).astype(np.uint8)


def header(stamp_ns, frame_id="camera"):
    stamp = T["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000))
    return T["std_msgs/msg/Header"](stamp, frame_id)


def raw(index, stamp_ns=None, **fields):
    values = {
        "header": header(START_NS + index * PERIOD_NS if stamp_ns is None else stamp_ns),
        "height": HEIGHT,
        "width": WIDTH,
        "encoding": "rgb8",
        "is_bigendian": 0,
        "step": WIDTH * 3,
        "data": picture(index).reshape(-1),
    }
    return T["sensor_msgs/msg/Image"](**{**values, **fields})


def compressed(index, kind="png"):
    file = io.BytesIO()
    Image.fromarray(picture(index)).save(file, kind)
    data = np.frombuffer(file.getvalue(), np.uint8)
    stamp = header(START_NS + index * PERIOD_NS)
    return T["sensor_msgs/msg/CompressedImage"](stamp, f"rgb8; {kind} compressed bgr8", data)


def camera_info(width=WIDTH, height=HEIGHT, distortion=(0.0,) * 5, fx=20.0, model="plumb_bob"):
    roi = T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([fx, 0, 8, 0, 21, 6, 0, 0, 1], np.float64)
    p = np.array([30, 0, 7, 0, 0, 31, 5, 0, 0, 0, 1, 0], np.float64)
    r = np.eye(3).reshape(-1)
    d = np.array(distortion, np.float64)
    return T["sensor_msgs/msg/CameraInfo"](
        header(START_NS), height, width, model, d, k, r, p, 0, 0, roi
    )


def write_bag(path, messages, plugin=StoragePlugin.MCAP, version=9, compression=None):
    """Write (topic, message or (type, CDR)) 1 ms after the stamps of `raw(0)`, `raw(1)`, ..."""
    writer = Writer(path, version=version, storage_plugin=plugin)
    if compression:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections, counts = {}, {}
        for topic, message in messages:
            kind, cdr = message if isinstance(message, tuple) else (message.__msgtype__, None)
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            count = counts[topic] = counts.get(topic, -1) + 1
            data = TYPES.serialize_cdr(message, kind) if cdr is None else cdr
            writer.write(connections[topic], START_NS + count * PERIOD_NS + 1_000_000, data)
    return path


def images(topic="/camera/image_raw", count=5, make=raw):
    return [(topic, make(index)) for index in range(count)]


def changed(bag, target, change, storage=StoragePlugin.MCAP):
    """Copy a bag; `change(topic, message)` returns what to write instead, as (topic, message)s."""
    with (
        Reader(bag) as reader,
        Writer(target, version=9, storage_plugin=storage) as writer,
    ):
        connections = {}
        for connection, stamp_ns, cdr in reader.messages():
            message = TYPES.deserialize_cdr(cdr, connection.msgtype)
            for topic, new in change(connection.topic, message):
                kind = new.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
                writer.write(connections[topic], stamp_ns, TYPES.serialize_cdr(new, kind))
    return target
