# SPDX-License-Identifier: Apache-2.0
"""Pictures and a configuration for the small network, and the poses that it gives by itself."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from small_network import small_checkpoint, small_network

from ttt3r_ros.camera.preprocessing import to_network_input
from ttt3r_ros.config import Config, with_values
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.types import Frame

# The depth of random weights is nothing but edges.

# The depth of random weights is nothing but edges.
CONFIG = with_values(
    Config(checkpoint=small_checkpoint(), device="cpu", process_all_images=True),
    {"map.edge_filter": 0.0},
)


def frames(n, height=96, width=128):
    """Pictures that need no resizing for the small network, which wants 128x96."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8, width // 4, 3), np.uint8)
    base = cv2.resize(coarse, (2 * width, height), interpolation=cv2.INTER_LINEAR)
    return [Frame(i * 100_000_000, base[:, 3 * i : 3 * i + width].copy()) for i in range(n)]


def raw_poses(images):
    """The network alone over the images, from a new state: camera-to-world matrices."""
    network = small_network()
    state = network.initial_state()
    poses = []
    with torch.inference_mode():
        for frame in images:
            state, prediction = network.step(state, to_network_input(frame.rgb))
            poses.append(prediction.pose_matrix[0].double().numpy())
    return poses


def pipeline(**values):
    return Pipeline.from_config(with_values(CONFIG, values))
