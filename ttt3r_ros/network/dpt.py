# SPDX-License-Identifier: Apache-2.0
"""The convolutional head: four token maps of the network fused from coarse to fine (DPT).

Attribute names are the checkpoint format's. The structure is fixed for patches of 16 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ttt3r_ros.network.layers import at_least_float32

MAP_WIDTHS = (96, 192, 384, 768)
FUSION_WIDTH = 256
HEAD_WIDTH = 128
OUT_CHANNELS = 4  # x, y, z, confidence


def upsample(x: Tensor) -> Tensor:
    """Doubles height and width of [B, C, h, w], bilinear, corners aligned."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def conv3x3(in_width: int, out_width: int, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(in_width, out_width, 3, padding=1, bias=bias)


class ResidualUnit(nn.Module):
    """Two convolutions added to their input, [B, 256, h, w] → the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv3x3(FUSION_WIDTH, FUSION_WIDTH)
        self.conv2 = conv3x3(FUSION_WIDTH, FUSION_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Adds conv2(relu(conv1(relu(x)))) to x, [B, C, H, W]."""
        x = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return x


class FusionBlock(nn.Module):
    """Adds the next finer map to what came from the coarser ones and doubles the size.

    Args:
        merges: false for the coarsest block, which has nothing to add to.
    """

    def __init__(self, merges: bool) -> None:
        super().__init__()
        if merges:
            self.resConfUnit1 = ResidualUnit()
        self.resConfUnit2 = ResidualUnit()
        self.out_conv = nn.Conv2d(FUSION_WIDTH, FUSION_WIDTH, 1)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """Maps [B, 256, h, w], with a finer map of the same size, to [B, 256, 2h, 2w]."""
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        # A 1x1 convolution commutes with the upsampling and is four times cheaper before it.
        return upsample(self.out_conv(self.resConfUnit2(x)))


class Fusion(nn.Module):
    """Brings the four maps to one width and fuses them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1_rn = conv3x3(MAP_WIDTHS[0], FUSION_WIDTH, bias=False)
        self.layer2_rn = conv3x3(MAP_WIDTHS[1], FUSION_WIDTH, bias=False)
        self.layer3_rn = conv3x3(MAP_WIDTHS[2], FUSION_WIDTH, bias=False)
        self.layer4_rn = conv3x3(MAP_WIDTHS[3], FUSION_WIDTH, bias=False)
        self.refinenet1 = FusionBlock(merges=True)
        self.refinenet2 = FusionBlock(merges=True)
        self.refinenet3 = FusionBlock(merges=True)
        self.refinenet4 = FusionBlock(merges=False)

    def forward(self, x1: Tensor, x2: Tensor, x3: Tensor, x4: Tensor) -> Tensor:
        """Maps x1 to x4, of 4, 2, 1 and 1/2 the patch grid's size, to [B, 256, 8gh, 8gw]."""
        rows, columns = x3.shape[2:]
        fused = self.refinenet4(self.layer4_rn(x4))
        fused = fused[:, :, :rows, :columns]  # half of an odd grid was rounded up
        fused = self.refinenet3(fused, self.layer3_rn(x3))
        fused = self.refinenet2(fused, self.layer2_rn(x2))
        out: Tensor = self.refinenet1(fused, self.layer1_rn(x1))
        return out


class DptTower(nn.Module):
    """From four token maps to four raw channels per pixel.

    Args:
        image_width: E, of the encoder's features (the first map).
        width: C, of the decoder's layers (the other three).
    """

    def __init__(self, image_width: int, width: int) -> None:
        super().__init__()
        w1, w2, w3, w4 = MAP_WIDTHS
        self.act_postprocess = nn.ModuleList(
            (
                nn.Sequential(nn.Conv2d(image_width, w1, 1), nn.ConvTranspose2d(w1, w1, 4, 4)),
                nn.Sequential(nn.Conv2d(width, w2, 1), nn.ConvTranspose2d(w2, w2, 2, 2)),
                nn.Sequential(nn.Conv2d(width, w3, 1)),
                nn.Sequential(nn.Conv2d(width, w4, 1), nn.Conv2d(w4, w4, 3, 2, padding=1)),
            )
        )
        self.scratch = Fusion()
        self.head = nn.Sequential(
            conv3x3(FUSION_WIDTH, HEAD_WIDTH),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            conv3x3(HEAD_WIDTH, HEAD_WIDTH),
            nn.ReLU(),
            nn.Conv2d(HEAD_WIDTH, OUT_CHANNELS, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, gh, gw, E] and three [B, gh, gw, C] to raw channels [B, 16gh, 16gw, 4]."""
        resized = [
            resize(tokens.permute(0, 3, 1, 2))
            for resize, tokens in zip(self.act_postprocess, maps, strict=True)
        ]
        return at_least_float32(self.head(self.scratch(*resized))).permute(0, 2, 3, 1)
