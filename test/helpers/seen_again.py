# SPDX-License-Identifier: Apache-2.0
"""Loops with a network of random weights, which recognizes nothing by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from driven_stream import SURE
from tolerant import TOLERANT

from ttt3r_ros.pose_graph import graph, loop_closer
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.relocalize import Relocalization

# Questions as often as may be, and answers at once.
EAGER = {
    **TOLERANT,
    "process_all_images": True,
    "segment.reset_interval": 4,
    "loop.every_images": 3,
    "loop.min_step": 0.0,
    "loop.min_path": 0.0,
    "loop.delay_images": 1,
    "loop.max_correction_m": 1000.0,
}


def recognise_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer each question surely: the camera stands where the keyframe's stood.

    One answer is enough, though by random weights the camera may look anywhere after an image.
    """
    monkeypatch.setattr(graph, "_VAGUE_RAD", np.inf)

    def attempts(
        network: Any, features: Any, rgb: Any, lens: Any, tried: Sequence[Keyframe]
    ) -> list[Relocalization]:
        return [
            Relocalization(k, k.state, None, 2.0, k.T_map_camera, np.eye(4), np.eye(4), SURE)
            for k in tried
        ]

    monkeypatch.setattr(loop_closer, "attempts_with", attempts)
