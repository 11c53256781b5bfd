# SPDX-License-Identifier: Apache-2.0
"""Where training starts: weights from which depth, motion in the image and pose are learnt soon.

From weights drawn at random motion is not found in tens of thousands of images: it is a product
of what two images show, hidden among all products of all channels. Here the network begins as a
plain detector of motion (`_start_recurrence`) and everything else is drawn at random around it.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.decoder import DecoderBlock
from ttt3r_ros.network.dpt import OUT_CHANNELS
from ttt3r_ros.network.heads import LinearHeads
from ttt3r_ros.network.layers import CrossAttention
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.refiner import Refiner

# Where the cross attention's heads look at first, in patches (rows, columns): in the first layer
# all at the same place and hardly beside it, in the others also around it.
_SAME, _AROUND = ((0, 0),), ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
_SAME_SHARPNESS, _AROUND_SHARPNESS = 9.0, 5.0  # amplitudes of the biases that make them look there
_SHARP_FREQUENCIES = 2  # of the rotary encoding; lower ones do not tell neighbours apart
_FIRST_DEPTH_M = 2.0
_LOUDNESS = 12.0  # of the patches' cosines
_EMBEDDING = 0.65  # makes the standard deviation of image tokens 1 as the decoder begins
_QUIET = 0.15  # of what would drown that
_TIME = 2.0  # differences in time are smaller than those in space


def initial_network(config: NetworkConfig, seed: int, update_rule: str) -> Network:
    """A network with a linear head to train."""
    torch.manual_seed(seed)
    network = Network(config, update_rule=update_rule)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.7 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        for blocks in (network.enc_blocks, network.dec_blocks, network.dec_blocks_state):
            _quieten(blocks, 1 / math.sqrt(len(blocks)), "attn.proj.weight", "mlp.fc2.weight")
        _quieten(network.enc_blocks, _QUIET, ".attn.proj.weight", "mlp.fc2.weight")
        _start_patches(network.patch_embed.proj)
        for stream in (network.dec_blocks_state, network.dec_blocks):
            first, *others = (cast(DecoderBlock, block).cross_attn for block in stream)
            _look_at_places(first, _SAME * first.heads, _SAME_SHARPNESS, config.rope_base)
            for attention in others:
                _look_at_places(attention, _AROUND, _AROUND_SHARPNESS, config.rope_base)
        _start_recurrence(network)
        network.register_tokens.weight.normal_(std=0.2)
        network.pose_retriever.mem.normal_(std=0.2)
        _start_heads(cast(LinearHeads, network.downstream_head), config.patch_size)
    return network


def _quieten(module: nn.Module, factor: float, *endings: str) -> None:
    """Let the layers whose names end like this add little at first."""
    for name, parameter in module.named_parameters():
        if name.endswith(endings):
            parameter.mul_(factor)


def _shares(width: int) -> tuple[int, int, int]:
    """Channels of a patch for brightness and for two colours."""
    return width - 2 * (width // 4), width // 4, width // 4


def _start_patches(projection: nn.Conv2d) -> None:
    """Let tokens begin as the patch's lowest cosines, of brightness and of two colours.

    Small shifts of the image then change a few strong channels smoothly, so that motion is found
    from few examples; pictures have less of the higher frequencies.
    """
    width, channels, size, _ = projection.weight.shape
    place = (torch.arange(size) + 0.5) * math.pi / size
    cosines = torch.cos(torch.arange(size)[:, None] * place)  # [frequency, place]
    order = sorted((u * u + v * v, u, v) for u in range(size) for v in range(size))
    colours = torch.tensor([[1.0, 1, 1], [1, -1, 0], [0.5, 0.5, -1]])
    filters = [
        (1.5 if squared else 0.5) * torch.einsum("c,i,j->cij", colour, cosines[v], cosines[u])
        for colour, share in zip(colours, _shares(width), strict=True)
        for squared, u, v in order[:share]
    ]
    projection.weight.copy_(torch.stack(filters) * (_LOUDNESS / (channels * size * size)))
    nn.init.zeros_(cast(nn.Parameter, projection.bias))


def _look_at_places(
    attention: CrossAttention,
    offsets: tuple[tuple[int, int], ...],
    sharpness: float,
    rope_base: float,
) -> None:
    """Biases of queries and keys that the rotary encoding turns into a preference for places.

    With a query (a, 0) and a key a (cos wd, -sin wd) in a pair of frequency w, the logit is
    a² cos w (p - (p' - d)): greatest where the key's place p' is the query's place p plus d.
    """
    heads = attention.heads
    quarter = attention.projq.bias.numel() // heads // 4
    query = torch.zeros(heads, 2, 2, quarter)  # head, row or column, u or v, frequency
    key = torch.zeros_like(query)
    frequency = rope_base ** (-torch.arange(quarter) / quarter)
    for head, offset in zip(range(heads), offsets, strict=False):
        for axis in range(2):
            angle = offset[axis] * frequency[:_SHARP_FREQUENCIES]
            query[head, axis, 0, :_SHARP_FREQUENCIES] = sharpness
            key[head, axis, 0, :_SHARP_FREQUENCIES] = sharpness * angle.cos()
            key[head, axis, 1, :_SHARP_FREQUENCIES] = -sharpness * angle.sin()
    attention.projq.bias.copy_(query.flatten())
    attention.projk.bias.copy_(key.flatten())
    _quieten(attention, _QUIET, "projq.weight", "projk.weight")


def _start_recurrence(network: Network) -> None:
    """Let half of the channels begin as the difference to the last image, and multiply.

    The state begins as the last image's tokens; image tokens are the patches' strongest cosines
    twice, once less those of the state. The first MLP forms the products of both: motion is the
    product of a gradient in space and a difference in time.
    """
    state = [cast(DecoderBlock, block) for block in network.dec_blocks_state]
    image = cast(DecoderBlock, network.dec_blocks[0])
    width, features = network.decoder_embed.weight.shape
    half = width // 2
    for attention, share, first in ((state[0].cross_attn, 1.0, 0), (image.cross_attn, -1.0, half)):
        kept = torch.eye(width)
        attention.projv.weight.copy_(kept)
        kept[:first] = 0
        attention.proj.weight.copy_(share * kept)
    for block in (*state, image):
        _quieten(block.attn, _QUIET, "proj.weight")
        _quieten(block.mlp, _QUIET, "fc2.weight")
    for block in state[1:]:
        _quieten(block.cross_attn, _QUIET, "proj.weight")

    brightness, colour, _ = _shares(features)
    quarter = half // 4
    starts = (0, half // 2, half // 2 + quarter)  # of brightness and colours among the channels
    network.decoder_embed.weight.zero_()
    for start, share, source in zip(
        starts, (half // 2, quarter, quarter), (0, brightness, brightness + colour), strict=True
    ):
        for i in range(share):
            network.decoder_embed.weight[[start + i, half + start + i], source + i] = _EMBEDDING

    pairs = [
        (start + i, half + start + j)
        for start, count in zip(starts, (6, 3, 3), strict=True)
        for i in range(count)
        for j in range(count)
    ]
    # gelu(a + b) + gelu(-a - b) - gelu(a - b) - gelu(b - a) is about 1.6 a b.
    mlp = image.mlp
    for number, (space, time) in enumerate(pairs[: mlp.fc1.out_features // 4]):
        units = slice(4 * number, 4 * number + 4)
        mlp.fc1.weight[units] = 0
        mlp.fc1.weight[units, space] = torch.tensor([1.0, -1, 1, -1])
        mlp.fc1.weight[units, time] = torch.tensor([1.0, -1, -1, 1]) * _TIME
        direction = nn.functional.normalize(torch.randn(width), dim=0)
        mlp.fc2.weight[:, units] = direction[:, None] * torch.tensor([1.0, 1, -1, -1])


def _start_heads(heads: LinearHeads, patch_size: int) -> None:
    """Let points begin straight ahead, and the camera at rest."""
    pose = heads.pose_head.mlp.fc2
    pose.weight.mul_(0.1)
    pose.bias.copy_(torch.tensor([0.0, 0, 0, 1, 0, 0, 0]))
    raw = heads.proj.fc2
    raw.weight.mul_(0.1)
    start = torch.tensor([0.0, 0.0, math.log1p(_FIRST_DEPTH_M), 0.0])
    raw.bias.copy_(start.repeat_interleave(patch_size**2))
    if heads.refiner is not None:
        start_refiner(heads.refiner)
        # Left to learn, it found neither seams nor edges in an hour, and took a tenth of the time.
        heads.refiner.requires_grad_(False)


@torch.no_grad()
def start_refiner(refiner: Refiner) -> None:
    """Make the refiner a blur of the raw output's 2x2 means, the image left aside.

    gelu(x) - gelu(-x) is x, so pairs of channels carry values through unchanged: the means as they
    are, and the means blurred once more by each convolution. The last adds the difference.
    """
    pixels = refiner.conv4.out_channels // OUT_CHANNELS
    signals = 2 * OUT_CHANNELS  # the means, then the blurred ones
    if refiner.conv1.out_channels < 2 * signals:
        raise ValueError(f"refiner_width: must be at least {2 * signals} for this start")
    middle = torch.zeros(3, 3)
    middle[1, 1] = 1.0
    box = torch.full((3, 3), 1 / 9)
    for convolution in (refiner.conv1, refiner.conv2, refiner.conv3, refiner.conv4):
        nn.init.zeros_(cast(nn.Parameter, convolution.bias))
    for convolution in (refiner.conv1, refiner.conv2, refiner.conv3):
        convolution.weight[: 2 * signals] = 0
        convolution.weight[2 * signals :] *= 0.5
    last = refiner.conv4.weight.zero_()
    for number in range(signals):
        channel, kernel = number % OUT_CHANNELS, middle if number < OUT_CHANNELS else box
        plus, minus = number, signals + number
        means = slice(channel * pixels, (channel + 1) * pixels)
        refiner.conv1.weight[plus, means] = kernel / pixels
        refiner.conv1.weight[minus, means] = -kernel / pixels
        for convolution in (refiner.conv2, refiner.conv3):
            for target, sign in ((plus, 1.0), (minus, -1.0)):
                convolution.weight[target, plus] = sign * kernel
                convolution.weight[target, minus] = -sign * kernel
        share = -1.0 if number < OUT_CHANNELS else 1.0
        last[means, plus] = share * kernel
        last[means, minus] = -share * kernel
