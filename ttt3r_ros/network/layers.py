# SPDX-License-Identifier: Apache-2.0
"""The building blocks both towers share: normalisation, MLP and the two attentions.

With weights kept in a lower precision, or under autocast, the products run in it; what is added
to a residual stream, the normalisation and the rotary encoding stay in float32. Whole blocks live
in `encoder` and `decoder`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttt3r_ros.network.linear import Linear
from ttt3r_ros.network.rotary import RotaryTable, rotate

NORM_EPS = 1e-6


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor [...] in float32, or as it is when it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def layer_norm(width: int) -> nn.LayerNorm:
    """The normalisation used everywhere: over the last axis, affine, eps 1e-6."""
    return nn.LayerNorm(width, eps=NORM_EPS)


class Mlp(nn.Module):
    """Two linear layers around an exact (erf) GELU, [..., width] → [..., out_width]."""

    def __init__(self, width: int, hidden_width: int, out_width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden_width)
        self.fc2 = Linear(hidden_width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps every token by itself, [B, N, C] to [B, N, C]."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention, all heads side by side, logits scaled by 1/√d.

    Args:
        queries: [B, T, heads, d]
        keys: [B, K, heads, d]
        values: [B, K, heads, d]

    Returns:
        [B, T, heads * d]
    """
    queries, keys = queries.to(values.dtype), keys.to(values.dtype)  # as rotated: float32
    out = F.scaled_dot_product_attention(
        queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
    )
    return out.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention among the tokens of one stream.

    Args:
        width: of a token; head j owns channels [j·d, (j + 1)·d).
        heads: number of heads.
        rope_float16: round queries and keys to float16 before and after their rotation, as the
            published models were run.
    """

    def __init__(self, width: int, heads: int, rope_float16: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.rope_float16 = rope_float16
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, rotary: RotaryTable | None = None) -> Tensor:
        """Mixes the tokens x [B, T, W] at the positions of `rotary`; none means no positions."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, heads, d]
        queries_keys, values = qkv[:, :, :2].flatten(2, 3), qkv[:, :, 2]
        if rotary is not None:
            if self.rope_float16:
                rounded = rotate(queries_keys.half(), rotary).half()
                queries_keys = rounded.to(rotary.cos.dtype)
            else:
                queries_keys = rotate(queries_keys, rotary)
        queries, keys = queries_keys.chunk(2, dim=2)
        out: Tensor = self.proj(attend(queries, keys, values))
        return out


class CrossAttention(nn.Module):
    """Attention of one stream's tokens over the other stream's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = Linear(width, width)
        self.projk = Linear(width, width)
        self.projv = Linear(width, width)
        self.proj = Linear(width, width)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        rotary_x: RotaryTable | None = None,
        rotary_y: RotaryTable | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reads y [B, K, W] with the tokens x [B, T, W].

        Returns:
            What was read [B, T, W], and the rotated queries [B, T, heads, d] and keys
            [B, K, heads, d], from which the state gain is made.
        """
        queries = self.projq(x).unflatten(-1, (self.heads, -1))
        keys = self.projk(y).unflatten(-1, (self.heads, -1))
        values = self.projv(y).unflatten(-1, (self.heads, -1))
        if rotary_x is not None:
            queries = rotate(queries, rotary_x)
        if rotary_y is not None:
            keys = rotate(keys, rotary_y)
        return self.proj(attend(queries, keys, values)), queries, keys
