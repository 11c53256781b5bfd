# SPDX-License-Identifier: Apache-2.0
"""The first steps, before there is an image."""

from __future__ import annotations

import numpy as np
import torch

from ttt3r_ros.camera.preprocessing import Preprocessor
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.recorded import RecordedNetwork
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.tracking.observation import read_answer

_HEIGHT = 480  # of an image, in pixels


def warm_up(
    network: Network | RecordedNetwork,
    state: RecurrentState,
    preprocessor: Preprocessor,
    *,
    with_gate: bool,
) -> None:
    """Let libraries choose, compile and record what they will, so that no image waits for it.

    It is done for images of 4:3; others wait at their first one. Looking for a place, with several
    streams at once, is not warmed up.

    Args:
        network: that will be stepped.
        state: that streams begin with.
        preprocessor: of its images.
        with_gate: whether some images will not be written into the state.
    """
    image = preprocessor.image(np.zeros((_HEIGHT, _HEIGHT * 4 // 3, 3), np.uint8))
    with torch.inference_mode():
        features = network.encode(image.input)
        for update in (True, False) if with_gate else (True,):
            _, prediction = network.advance(state, features, update)
    read_answer(prediction)  # waits for the device
