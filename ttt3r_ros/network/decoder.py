# SPDX-License-Identifier: Apache-2.0
"""The two-stream decoder: state tokens and image tokens read each other, layer by layer.

It proposes a new state and the images' decoded tokens; how much of the proposal the state takes
is decided in `state`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ttt3r_ros.network.layers import CrossAttention, Mlp, SelfAttention, layer_norm
from ttt3r_ros.network.rotary import RotaryTable


class DecoderBlock(nn.Module):
    """One stream's layer: attention to itself, attention to the other stream, MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = layer_norm(width)
        self.norm_y = layer_norm(width)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = layer_norm(width)
        self.mlp = Mlp(width, mlp_ratio * width, width)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        rotary_x: RotaryTable | None = None,
        rotary_y: RotaryTable | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Updates the tokens x [B, T, W], reading y [B, K, W].

        Returns:
            The new x [B, T, W]; queries and keys of the cross attention, as `CrossAttention`.
        """
        x = x + self.attn(self.norm1(x), rotary_x)
        read, queries, keys = self.cross_attn(self.norm2(x), self.norm_y(y), rotary_x, rotary_y)
        x = x + read
        x = x + self.mlp(self.norm3(x))
        return x, queries, keys


class StreamTables(NamedTuple):
    """Rotations for both kinds of tokens at the head width of one stream."""

    state: RotaryTable
    image: RotaryTable


def mean_logit(queries: Tensor, keys: Tensor) -> Tensor:
    """Mean over heads and keys of the scaled attention logits, without making them.

    The logit q·k/√d is linear in the key, so averaging the keys first gives the same mean.

    Args:
        queries: [B, T, heads, d]
        keys: [B, K, heads, d]

    Returns:
        [B, T]
    """
    heads, head_width = queries.shape[2:]
    total = (queries * keys.mean(dim=1, keepdim=True)).sum(dim=(2, 3))
    return total / (heads * math.sqrt(head_width))


def run_decoder(
    state_blocks: Iterable[nn.Module],
    image_blocks: Iterable[nn.Module],
    state: Tensor,
    image: Tensor,
    state_stream: StreamTables,
    image_stream: StreamTables,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Runs both streams side by side, each layer on both outputs of the layer before.

    Args:
        state_blocks: the L layers of the state stream.
        image_blocks: the L layers of the image stream.
        state: state tokens, [B, S, C].
        image: the pose token, then the image tokens, [B, 1 + N, C].
        state_stream: rotations at the state stream's head width.
        image_stream: rotations at the image stream's head width.

    Returns:
        The state stream's output [B, S, C]; the image stream's input and L outputs, each
        [B, 1 + N, C]; and β [B, S], the sigmoid of each state token's mean logit over all layers,
        heads and keys (pose token included) of the state stream's cross attention
        (arXiv 2509.26645).
    """
    layers = [image]
    logits = []
    for state_block, image_block in zip(state_blocks, image_blocks, strict=True):
        next_state, queries, keys = state_block(
            state, image, state_stream.state, state_stream.image
        )
        image, _, _ = image_block(image, state, image_stream.image, image_stream.state)
        state = next_state
        layers.append(image)
        logits.append(mean_logit(queries, keys))
    beta = torch.stack(logits).mean(dim=0).sigmoid()
    return state, layers, beta
