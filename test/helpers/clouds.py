# SPDX-License-Identifier: Apache-2.0
"""What is in a PointCloud2."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2


def colours(message: PointCloud2) -> np.ndarray:
    """The colours [N, 3] of a cloud."""
    (field,) = [field for field in message.fields if field.name == "rgb"]
    rows = np.frombuffer(message.data, np.uint8).reshape(-1, message.point_step)
    return rows[:, field.offset : field.offset + 3][:, ::-1]
