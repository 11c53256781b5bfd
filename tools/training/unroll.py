# SPDX-License-Identifier: Apache-2.0
"""The network over a window of images, with what does not depend on the state done at once."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ttt3r_ros.network.decoder import DecoderBlock, mean_logit
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState


class Unrolled(NamedTuple):
    """What the network says about B windows of T images; batches are of B * T, window by window.

    The prediction's gain is not filled in.
    """

    prediction: Prediction
    tokens: Tensor  # [B * T, 1 + N, C] decoded tokens, the pose token first
    logits: Tensor  # [T, B, S] of the gain: a state token's mean attention logit
    state: RecurrentState  # after the last image


def unroll(network: Network, image: Tensor, state: RecurrentState | None = None) -> Unrolled:
    """Run a network with a linear head over windows. Gradients flow from image to image.

    Args:
        network: with any rule.
        image: [B, T, 3, H, W].
        state: of the B streams before their windows; without one, new ones.
    """
    batch, images = image.shape[:2]
    features = torch.unflatten(network.encode(image.flatten(0, 1)), 0, (batch, images))
    decoded: list[Tensor] = []
    logits: list[Tensor] = []
    hooks = [network.dec_norm.register_forward_hook(lambda _, __, out: decoded.append(out))]

    def note(_: nn.Module, __: object, out: tuple[Tensor, Tensor, Tensor]) -> None:
        logits.append(mean_logit(out[1].float(), out[2].float()))

    hooks += [cast(DecoderBlock, b).register_forward_hook(note) for b in network.dec_blocks_state]
    try:
        state = state or network.initial_state(batch)
        for t in range(images):
            state, _ = network.advance(state, features[:, t], heads=False)
    finally:
        for hook in hooks:
            hook.remove()
    tokens = torch.stack(decoded, dim=1).flatten(0, 1)
    # A linear head reads the last layer only.
    layers = [tokens] * (network.config.dec_depth + 1)
    no_gain = tokens.new_zeros(len(tokens), network.config.state_size)
    prediction = network.predict(features.flatten(0, 1), layers, no_gain)
    layered = torch.unflatten(torch.stack(logits), 0, (images, -1))  # [T, L, B, S]
    return Unrolled(prediction, tokens, layered.mean(dim=1), state)
