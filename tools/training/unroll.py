# SPDX-License-Identifier: Apache-2.0
"""The network over a window of images, with what does not depend on the state done at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction


class Unrolled(NamedTuple):
    """What the network says about B windows of T images; batches are of B * T, window by window.

    The prediction's gain is not filled in.
    """

    prediction: Prediction
    tokens: Tensor  # [B * T, 1 + N, C] decoded tokens, the pose token first


def unroll(network: Network, image: Tensor) -> Unrolled:
    """Run a network with a linear head from a new state over windows, [B, T, 3, H, W].

    Gradients flow through the state from image to image.
    """
    batch, images = image.shape[:2]
    features = torch.unflatten(network.encode(image.flatten(0, 1)), 0, (batch, images))
    decoded: list[Tensor] = []
    hook = network.dec_norm.register_forward_hook(lambda _, __, out: decoded.append(out))
    try:
        state = network.initial_state(batch)
        for t in range(images):
            state, _ = network.advance(state, features[:, t], heads=False)
    finally:
        hook.remove()
    tokens = torch.stack(decoded, dim=1).flatten(0, 1)
    # A linear head reads the last layer only.
    layers = [tokens] * (network.config.dec_depth + 1)
    no_gain = tokens.new_zeros(len(tokens), network.config.state_size)
    prediction = network.predict(features.flatten(0, 1), layers, no_gain)
    return Unrolled(prediction, tokens)
