# SPDX-License-Identifier: Apache-2.0
"""From decoded tokens to a pose, points and confidences.

Two kinds of files exist: with a convolutional tower (`dpt`) and with one MLP per patch (`linear`).
They differ in how raw channels per pixel are made; what those mean is the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.dpt import OUT_CHANNELS, DptTower
from ttt3r_ros.network.layers import Mlp, SelfAttention, at_least_float32, layer_norm
from ttt3r_ros.network.linear import Linear
from ttt3r_ros.network.precision import tf32_products
from ttt3r_ros.network.refiner import Refiner
from ttt3r_ros.network.rotary import RotaryTable

HEAD_MLP_RATIO = 4


def expand(vectors: Tensor) -> Tensor:
    """Makes lengths exponential: each vector v [..., 3] → v/‖v‖ · (exp ‖v‖ - 1)."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * (torch.expm1(length) / length.clamp(min=1e-8))


def points_and_confidence(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Reads raw channels [B, H, W, 4] as points [B, H, W, 3] and confidences [B, H, W] > 1."""
    return expand(raw[..., :3]), 1 + raw[..., 3].exp()


def pose_matrix(pose: Tensor) -> Tensor:
    """The rigid motion of a pose vector.

    Args:
        pose: [B, 7], tx ty tz qw qx qy qz; the quaternion need not be of unit length.

    Returns:
        [B, 4, 4]
    """
    w, x, y, z = F.normalize(pose[:, 3:], dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), pose[:, 0]),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), pose[:, 1]),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), pose[:, 2]),
        (torch.zeros_like(w), torch.zeros_like(w), torch.zeros_like(w), torch.ones_like(w)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


class PoseHead(nn.Module):
    """From the decoded pose token to the camera's pose."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = Mlp(width, HEAD_MLP_RATIO * width, 7)

    def forward(self, pose_token: Tensor) -> Tensor:
        """Maps a token [B, C] to tx ty tz (m) and a unit quaternion qw qx qy qz, [B, 7]."""
        # One token per image: full precision costs nothing and the pose is what accumulates.
        with torch.autocast(pose_token.device.type, enabled=False), tf32_products(False):
            raw: Tensor = self.mlp(pose_token)
            quaternion = F.normalize(raw[:, 3:], dim=-1)
            quaternion = torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)
            return torch.cat((expand(raw[:, :3]), quaternion), dim=-1)


class ConditionedNorm(nn.Module):
    """A normalisation whose shift and scale come from the pose token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = layer_norm(width)
        self.mlp = nn.Sequential(nn.SiLU(), Linear(width, 2 * width))

    def forward(self, x: Tensor, pose_token: Tensor) -> Tensor:
        """Normalises x [B, N, C] under a pose token [B, 1, C]."""
        shift, scale = at_least_float32(self.mlp(pose_token)).chunk(2, dim=-1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


class ConditionedBlock(nn.Module):
    """An encoder block under a pose token: moves image tokens into the world's view."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = ConditionedNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = ConditionedNorm(width)
        self.mlp = Mlp(width, mlp_ratio * width, width)

    def forward(self, x: Tensor, pose_token: Tensor, rotary: RotaryTable) -> Tensor:
        """Maps tokens [B, N, C] to tokens [B, N, C]; the pose token is [B, 1, C]."""
        x = x + self.attn(self.norm1(x, pose_token), rotary)
        x = x + self.mlp(self.norm2(x, pose_token))
        return x


class Heads(nn.Module):
    """All heads of one file; `in_camera` and `in_world` are the kind's own.

    The maps they take are the encoder's features [B, gh, gw, E] and the image stream's layers
    ⌊2L/4⌋, ⌊3L/4⌋ and last (normalised), [B, gh, gw, C] each. With a refiner the pixels of each
    patch follow its features, see `Network.encode`.
    """

    def __init__(self, config: NetworkConfig, world_points_head: bool) -> None:
        super().__init__()
        width = config.dec_embed_dim
        self.pose_head = PoseHead(width)
        if world_points_head:
            self.final_transform = nn.ModuleList(
                ConditionedBlock(width, config.dec_num_heads, config.mlp_ratio) for _ in range(2)
            )

    def to_world(self, tokens: Tensor, pose_token: Tensor, rotary: RotaryTable) -> Tensor:
        """Image tokens [B, N, C] conditioned on the pose token [B, 1, C]; for the world points."""
        for block in self.final_transform:
            tokens = block(tokens, pose_token, rotary)
        return tokens

    @abstractmethod
    def in_camera(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Points [B, H, W, 3] in the camera frame and their confidences [B, H, W]."""

    @abstractmethod
    def in_world(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `in_camera`, [B, H, W, 3] in the world frame; the last map went `to_world`."""


class DptHeads(Heads):
    """Heads of a `dpt` file."""

    def __init__(self, config: NetworkConfig, world_points_head: bool) -> None:
        super().__init__(config, world_points_head)
        self.dpt_self = DptTower(config.enc_embed_dim, config.dec_embed_dim)
        if world_points_head:
            self.dpt_cross = DptTower(config.enc_embed_dim, config.dec_embed_dim)

    def in_camera(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Heads`: [B, H, W, 3] and [B, H, W]."""
        return points_and_confidence(self.dpt_self(maps))

    def in_world(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Heads`: [B, H, W, 3] and [B, H, W]."""
        return points_and_confidence(self.dpt_cross(maps))


class LinearHeads(Heads):
    """Heads of a `linear` file, for any patch size; of the maps, the last one is used.

    A refiner uses the image's pixels too.
    """

    def __init__(self, config: NetworkConfig, world_points_head: bool) -> None:
        super().__init__(config, world_points_head)
        width = config.dec_embed_dim
        pixels = config.patch_size**2
        self.patch_size = config.patch_size
        self.proj = Mlp(width, HEAD_MLP_RATIO * width, OUT_CHANNELS * pixels)
        self.refiner = Refiner(config.refiner_width) if config.refiner_width else None
        if world_points_head:
            self.cross_proj = Mlp(width, HEAD_MLP_RATIO * width, OUT_CHANNELS * pixels)

    def in_camera(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Heads`: [B, H, W, 3]; a point behind the camera is mirrored to its front."""
        raw = self._to_pixels(self.proj(maps[-1]))
        if self.refiner is not None:
            image = self._to_pixels(maps[0][..., -3 * self.patch_size**2 :])
            raw = self.refiner(raw, image)
        xyz, confidence = raw[..., :3], raw[..., 3:]
        return points_and_confidence(torch.cat((xyz * xyz[..., 2:].sign(), confidence), dim=-1))

    def in_world(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Heads`: [B, H, W, 3] and [B, H, W]."""
        return points_and_confidence(self._to_pixels(self.cross_proj(maps[-1])))

    def _to_pixels(self, patches: Tensor) -> Tensor:
        """Channels c·p² + i·p + j of each patch → channel c of its pixel (i, j), [B, H, W, .]."""
        patches = at_least_float32(patches).permute(0, 3, 1, 2)
        return F.pixel_shuffle(patches, self.patch_size).permute(0, 2, 3, 1)
