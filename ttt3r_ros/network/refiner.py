# SPDX-License-Identifier: Apache-2.0
"""A small residual over a linear head's raw pixels, so that no seams show between patches.

No part of the published architecture: a file has it only if its `refiner_width` says so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttt3r_ros.network.dpt import OUT_CHANNELS
from ttt3r_ros.network.layers import at_least_float32

# At half the resolution four 3x3 convolutions reach 9 pixels to every side: over any seam.
_HALVING = 2


class Refiner(nn.Module):
    """Four convolutions at half the resolution over raw channels and the image they are of."""

    def __init__(self, width: int) -> None:
        super().__init__()
        block = _HALVING**2
        self.conv1 = _convolution((OUT_CHANNELS + 3) * block, width)
        self.conv2 = _convolution(width, width)
        self.conv3 = _convolution(width, width)
        self.conv4 = _convolution(width, OUT_CHANNELS * block)

    def forward(self, raw: Tensor, image: Tensor) -> Tensor:
        """Maps raw channels [B, H, W, 4] and the image [B, H, W, 3] to raw channels."""
        x = torch.cat((raw, image), dim=-1).permute(0, 3, 1, 2)
        x = F.pixel_unshuffle(x, _HALVING)
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = F.gelu(convolution(x))
        residual = F.pixel_shuffle(at_least_float32(self.conv4(x)), _HALVING)
        return raw + residual.permute(0, 2, 3, 1)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    # Beyond its border the image goes on as it ends: zeros would be far points of their own.
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")
