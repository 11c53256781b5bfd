# SPDX-License-Identifier: Apache-2.0
"""The one import of rosbags, which a robot's install does not need.

Raises:
    SourceError: it is not installed; how to get it.
"""

from __future__ import annotations

from ttt3r_ros.types import SourceError

try:
    from rosbags.interfaces import Connection, QosDurability, TopicInfo
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore
except ImportError as error:
    raise SourceError(
        "reading and writing bags needs the library rosbags, which cannot be imported "
        f"({error}): pip install 'ttt3r_ros[recordings]', or rosbags alone"
    ) from error

__all__ = [
    "Connection",
    "QosDurability",
    "Reader",
    "StoragePlugin",
    "Stores",
    "TopicInfo",
    "Writer",
    "get_typestore",
]
