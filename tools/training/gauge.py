# SPDX-License-Identifier: Apache-2.0
"""Sets the mean attention logit of a network's state tokens, hardly changing what it answers.

Softmax does not see a constant added to all logits of a query; the gain of `ttt3r` does. A bias of
the keys of the state's cross attention adds such a constant, nearly: the rotary encoding lets it
depend on the key's place. Of all biases that move the mean as wanted, the one taken has the least
variation over keys, in closed form.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from tools.training.unroll import unroll
from ttt3r_ros.network.decoder import DecoderBlock
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.rotary import RotaryTable, image_table, rotate

_RIDGE = 0.1  # of the mean variance, for channels that no query uses
_MOST_QUERIES = 2048


@torch.no_grad()
def set_mean_logit(network: Network, image: Tensor, target: float) -> float:
    """Move the mean of the gain's logits to `target` by key biases alone.

    Args:
        network: changed in place.
        image: [B, T, 3, H, W] to measure on.
        target: of the mean over images, state tokens, layers, heads and keys.

    Returns:
        The mean before.
    """
    blocks = [cast(DecoderBlock, block) for block in network.dec_blocks_state]
    queries = [_Queries() for _ in blocks]
    hooks = [block.register_forward_hook(kept) for block, kept in zip(blocks, queries, strict=True)]
    try:
        before = float(unroll(network, image).logits.mean())
    finally:
        for hook in hooks:
            hook.remove()
    config = network.config
    rows, columns = (side // config.patch_size for side in image.shape[-2:])
    width = config.state_head_width
    table = image_table(
        rows, columns, True, width, config.rope_base, image.device, torch.get_default_dtype()
    )
    directions, moved = [], 0.0
    for kept in queries:
        direction, mean = _least_varying(kept.some(), table)
        directions.append(direction)
        moved += float((direction * mean).sum())
    heads = config.state_dec_num_heads
    per_unit = moved / (len(blocks) * heads * math.sqrt(width))
    for block, direction in zip(blocks, directions, strict=True):
        block.cross_attn.projk.bias.add_(direction.flatten() * ((target - before) / per_unit))
    return before


class _Queries:
    """A forward hook that keeps a decoder block's rotated queries, [B, S, heads, d] each."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def __call__(self, block: nn.Module, given: object, out: tuple[Tensor, ...]) -> None:
        self._parts.append(out[1].float())

    def some(self) -> Tensor:
        """[n, heads, d], evenly chosen."""
        together = torch.cat(self._parts).flatten(0, 1)
        return together[:: max(1, len(together) // _MOST_QUERIES)]


def _least_varying(queries: Tensor, table: RotaryTable) -> tuple[Tensor, Tensor]:
    """For each head the bias whose logits vary least over keys for their mean, up to a factor.

    Args:
        queries: rotated, [n, heads, d].
        table: of the K keys' places.

    Returns:
        The direction and the mean logit's slope along each channel, [heads, d] both.
    """
    # q . R_k b = (R_k⁻¹ q) . b: the queries turned back by each key's place.
    back = RotaryTable(table.cos, -table.sin)
    keys = table.cos.shape[0]
    turned = rotate(queries[:, None].expand(-1, keys, -1, -1), back)  # [n, K, heads, d]
    over_keys = turned.mean(dim=1, keepdim=True)
    mean = over_keys.mean(dim=(0, 1))
    off = turned - over_keys
    variance = torch.einsum("nkhi,nkhj->hij", off, off) / (len(queries) * keys)
    level = variance.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None]
    ridge = _RIDGE * level.clamp(min=1e-12) * torch.eye(variance.shape[-1], device=mean.device)
    direction: Tensor = torch.linalg.solve(variance + ridge, mean)
    return direction, mean
