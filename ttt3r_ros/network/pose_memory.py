# SPDX-License-Identifier: Apache-2.0
"""The pose memory: slots that remember how images looked and which pose token they ended with.

Reading answers an image's appearance with a first guess of its pose token; writing stores the
decoded one. No positions are involved. The slots themselves travel in `state.RecurrentState`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ttt3r_ros.network.decoder import DecoderBlock
from ttt3r_ros.network.layers import Mlp, SelfAttention, at_least_float32, layer_norm
from ttt3r_ros.network.linear import Linear


class SingleKeyCrossAttention(nn.Module):
    """Cross attention over one key: softmax of one logit is 1, so only the value path is left."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projv = Linear(width, width)
        self.proj = Linear(width, width)

    def forward(self, y: Tensor) -> Tensor:
        """What every query reads from the single token y, [B, 1, W] → [B, 1, W]."""
        out: Tensor = self.proj(self.projv(y))
        return out


class WriteBlock(nn.Module):
    """A decoder block whose other stream is one token; it has no query, key or norm2 for it."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = SelfAttention(width, heads)
        self.norm_y = layer_norm(width)
        self.cross_attn = SingleKeyCrossAttention(width)
        self.norm3 = layer_norm(width)
        self.mlp = Mlp(width, mlp_ratio * width, width)

    def forward(self, slots: Tensor, entry: Tensor) -> Tensor:
        """Updates the slots [B, M, W] with one entry [B, 1, W]."""
        slots = slots + self.attn(self.norm1(slots))
        slots = slots + self.cross_attn(self.norm_y(entry))
        slots = slots + self.mlp(self.norm3(slots))
        return slots


class PoseMemory(nn.Module):
    """Reader and writer of the slots, and their initial content.

    Args:
        image_width: E, of the encoder's features.
        pose_width: C, of a pose token; a slot is 2C wide: appearance, then pose token.
        slots: M.
        heads: of the memory's attention.
        mlp_ratio: hidden width over width.
    """

    def __init__(
        self, image_width: int, pose_width: int, slots: int, heads: int, mlp_ratio: int
    ) -> None:
        super().__init__()
        width = 2 * pose_width
        self.mem = nn.Parameter(nn.init.normal_(torch.empty(1, slots, width), std=0.02))
        self.masked_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, pose_width), std=0.02))
        self.proj_q = Linear(image_width, pose_width)
        # A reader's self-attention is over one token, so two thirds of its qkv have no effect.
        # They are kept: that is 1 % of the work, and the blocks stay the decoder's.
        self.read_blocks = nn.ModuleList(DecoderBlock(width, heads, mlp_ratio) for _ in range(2))
        self.write_blocks = nn.ModuleList(WriteBlock(width, heads, mlp_ratio) for _ in range(2))

    def appearance(self, features: Tensor) -> Tensor:
        """What an image looks like as a whole: features [B, N, E] → [B, 1, C]."""
        return at_least_float32(self.proj_q(features.mean(dim=1, keepdim=True)))

    def read(self, memory: Tensor, appearance: Tensor) -> Tensor:
        """The pose token [B, 1, C] to expect with an appearance [B, 1, C]; memory is [B, M, 2C]."""
        query = torch.cat((appearance, self.masked_token.expand_as(appearance)), dim=-1)
        for block in self.read_blocks:
            query, _, _ = block(query, memory)
        return query.chunk(2, dim=-1)[1]

    def write(self, memory: Tensor, appearance: Tensor, pose_token: Tensor) -> Tensor:
        """The memory [B, M, 2C] after storing an appearance and its pose token, both [B, 1, C]."""
        entry = torch.cat((appearance, pose_token), dim=-1)
        for block in self.write_blocks:
            memory = block(memory, entry)
        return memory
