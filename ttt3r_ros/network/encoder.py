# SPDX-License-Identifier: Apache-2.0
"""The image encoder's parts: patches to tokens, and the self-attention block.

The encoder sees one image and no state; running its blocks in order is `model`'s.
"""

from __future__ import annotations

from torch import Tensor, nn

from ttt3r_ros.network.layers import Mlp, SelfAttention, at_least_float32, layer_norm
from ttt3r_ros.network.rotary import RotaryTable


class PatchEmbed(nn.Module):
    """Cuts an image into square patches and projects each to one token."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """Maps an image [B, 3, H, W] to its grid of tokens [B, rows, columns, E]."""
        return at_least_float32(self.proj(image.to(self.proj.weight.dtype))).permute(0, 2, 3, 1)


class EncoderBlock(nn.Module):
    """Self-attention, then the MLP, each added to its input; arguments as in `SelfAttention`."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, rope_float16: bool = False) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = SelfAttention(width, heads, rope_float16)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, mlp_ratio * width, width)

    def forward(self, x: Tensor, rotary: RotaryTable) -> Tensor:
        """Maps tokens [B, N, E] to tokens [B, N, E]."""
        x = x + self.attn(self.norm1(x), rotary)
        x = x + self.mlp(self.norm2(x))
        return x
