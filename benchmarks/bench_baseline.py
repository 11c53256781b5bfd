# SPDX-License-Identifier: Apache-2.0
"""Our step beside the arithmetic as it is published, same weights and images, in one run.

    python benchmarks/bench_baseline.py --size 512x384 --images 5

The yardstick is `AsShipped`, a network with the work that the published implementation does and a
live step can do without, written from a description of that arithmetic. Each piece of work is a
switch of `Extras`; none of it changes a result, a test holds that. Attention in the image encoder
is fused there too, and stays so here. With all extra work, in float32 (TF32 on a GPU), it is what
ours is compared with, which runs as the node runs it, on a GPU recorded as CUDA graphs. Both take
each image in turn, in changing order. CPU seconds count all threads and suffer less from what else
the machine does than wall seconds. Peak memory is that of a process of its own for each, before
anything is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

import torch
from torch import Tensor, nn

from benchmarks import timing
from benchmarks.harness import table
from benchmarks.networks import SIZES, in_precision, random_weights, share_random_weights
from ttt3r_ros.loading import prepare
from ttt3r_ros.network.acceleration import accelerated
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.decoder import DecoderBlock, StreamTables
from ttt3r_ros.network.dpt import HEAD_WIDTH, DptTower, FusionBlock, upsample
from ttt3r_ros.network.encoder import EncoderBlock
from ttt3r_ros.network.heads import HEAD_MLP_RATIO
from ttt3r_ros.network.layers import Mlp, at_least_float32, layer_norm
from ttt3r_ros.network.linear import Linear
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import PRECISIONS
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.rotary import RotaryTable, image_table, rotate, state_table
from ttt3r_ros.network.shapes_only import shapes_only
from ttt3r_ros.network.state import RecurrentState, UpdateRule

OURS, BASELINE = "ours", "as shipped"
KINDS = ("wall", "cpu")  # seconds


@dataclass(frozen=True, slots=True)
class Extras:
    """Which avoidable work is done."""

    # The decoder's logits are written out, a copy of each is kept until the image is done, and
    # the gain is the mean of the state stream's copies, joined and reordered.
    attention_maps: bool = False
    torch_linear: bool = False  # matrices multiplied by whatever library torch takes
    world_head: bool = False  # points in the world's frame too
    rgb_head: bool = False  # an image too
    dead_projections: bool = False  # queries and keys of the memory's writer
    late_projections: bool = False  # 1x1 convolutions after an upsampling instead of before
    recomputed_tables: bool = False  # rotary tables made for every image
    # An empty ray map goes to the device with every image, and all results come back.
    transfers: bool = False
    unused_weights: bool = False  # of the ray maps' encoder and a residual unit of each tower

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The switches."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def all(cls) -> Extras:
        """As shipped."""
        return cls(**dict.fromkeys(cls.names(), True))


class FullWriteBlock(DecoderBlock):
    """A writer of the memory that projects queries and the one key, on which nothing depends."""

    def forward(self, slots: Tensor, entry: Tensor) -> Tensor:  # type: ignore[override]
        """As `WriteBlock`."""
        return super().forward(slots, entry)[0]


class LateFusionBlock(FusionBlock):
    """Projects after doubling the size: four times the work, the same result."""

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """As `FusionBlock`."""
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        out: Tensor = self.out_conv(upsample(self.resConfUnit2(x)))
        return out


class AsShipped(Network):
    """A network that does extra work; the parameters it shares with `Network` bear their names."""

    def __init__(
        self, config: NetworkConfig, extras: Extras, *, update_rule: UpdateRule | str = "ttt3r"
    ) -> None:
        super().__init__(config, update_rule=update_rule, world_points_head=extras.world_head)
        self.extras = extras
        self.rgb: Tensor | None = None  # [B, H, W, 3] of the last image, -1 to 1
        width, heads, ratio = config.dec_embed_dim, config.dec_num_heads, config.mlp_ratio
        if extras.dead_projections:
            self.pose_retriever.write_blocks = nn.ModuleList(
                FullWriteBlock(2 * width, heads, ratio) for _ in range(2)
            )
        if extras.rgb_head and config.head_type == "dpt":
            tower = DptTower(config.enc_embed_dim, width)
            tower.head[-1] = nn.Conv2d(HEAD_WIDTH, 3, 1)
            self.downstream_head.rgb = tower
        elif extras.rgb_head:
            pixels = config.patch_size**2
            self.downstream_head.rgb = Mlp(width, HEAD_MLP_RATIO * width, 3 * pixels)
        if extras.unused_weights:
            self.unused = _unused(config)
        for module in self.modules():
            # What such a module holds is the same; its class only says what it does with it.
            if extras.torch_linear and isinstance(module, Linear):
                module.__class__ = nn.Linear  # type: ignore[assignment]
            if extras.late_projections and isinstance(module, FusionBlock):
                module.__class__ = LateFusionBlock

    def step(
        self, state: RecurrentState, image: Tensor, update: bool = True
    ) -> tuple[RecurrentState, Prediction]:
        """As `Network.step`; with transfers it takes an image that is not yet on the device."""
        if not self.extras.transfers:
            return super().step(state, image, update)
        device = self.pose_token.device
        batch, _, height, width = image.shape
        torch.full((batch, 6, height, width), torch.nan).to(device)
        state, seen = super().step(state, image.to(device), update)
        on_host = {field.name: getattr(seen, field.name) for field in fields(seen)}
        on_host = {name: t.cpu() for name, t in on_host.items() if t is not None}
        self.rgb = None if self.rgb is None else self.rgb.cpu()
        return state, replace(seen, **on_host)

    def decode(
        self, state_tokens: Tensor, pose_token: Tensor, features: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """As `Network.decode`."""
        if not self.extras.attention_maps:
            return super().decode(state_tokens, pose_token, features)
        embedded = at_least_float32(self.decoder_embed(features.flatten(1, 2)))
        state, image = state_tokens, torch.cat((pose_token, embedded), dim=1)
        state_tables = self._stream_tables(features, self.config.state_head_width)
        image_tables = self._stream_tables(features, self.config.dec_head_width)
        layers, kept, gates = [image], [], []
        for state_block, image_block in zip(self.dec_blocks_state, self.dec_blocks, strict=True):
            next_state, maps = run_with_maps(
                cast(DecoderBlock, state_block),
                state,
                image,
                state_tables.state,
                state_tables.image,
            )
            image, image_maps = run_with_maps(
                cast(DecoderBlock, image_block),
                image,
                state,
                image_tables.image,
                image_tables.state,
            )
            state = next_state
            layers.append(image)
            gates.append(maps[1])
            kept += [*maps, *image_maps]  # until this function returns
        joined = torch.stack(gates)  # [L, B, heads, S, 1 + N]
        joined = joined.permute(1, 3, 0, 2, 4).contiguous()
        beta = at_least_float32(joined.mean(dim=(2, 3, 4))).sigmoid()
        layers[-1] = self.dec_norm(layers[-1])
        return self.dec_norm_state(state), layers, beta

    def predict(self, features: Tensor, layers: list[Tensor], gain: Tensor) -> Prediction:
        """As `Network.predict`; the image is kept in `rgb`."""
        seen = super().predict(features, layers, gain)
        if self.extras.rgb_head:
            self.rgb = self._render(features, layers)
        return seen

    def _render(self, features: Tensor, layers: list[Tensor]) -> Tensor:
        grid, depth = features.shape[1:3], self.config.dec_depth
        head = cast(nn.Module, self.downstream_head.rgb)
        used = (layers[2 * depth // 4], layers[3 * depth // 4], layers[-1])
        maps = [torch.unflatten(layer[:, 1:], 1, grid) for layer in used]
        if isinstance(head, DptTower):
            raw: Tensor = head([features, *maps])
        else:
            patches = at_least_float32(head(maps[-1])).permute(0, 3, 1, 2)
            raw = nn.functional.pixel_shuffle(patches, self.config.patch_size).permute(0, 2, 3, 1)
        return 2 * (raw.sigmoid() * (1 - 2e-6) + 1e-6 - 0.5)

    def _image_table(
        self, features: Tensor, head_width: int, with_pose_token: bool = False
    ) -> RotaryTable:
        if not self.extras.recomputed_tables:
            return super()._image_table(features, head_width, with_pose_token)
        grid = tuple(features.shape[1:3])
        base, device, dtype = self.config.rope_base, features.device, features.dtype
        return image_table.__wrapped__(*grid, with_pose_token, head_width, base, device, dtype)

    def _stream_tables(self, features: Tensor, head_width: int) -> StreamTables:
        if not self.extras.recomputed_tables:
            return super()._stream_tables(features, head_width)
        config, device, dtype = self.config, features.device, features.dtype
        size, kind, base = config.state_size, config.state_pe, config.rope_base
        state = state_table.__wrapped__(size, kind, head_width, base, device, dtype)
        return StreamTables(state, self._image_table(features, head_width, with_pose_token=True))


def run_with_maps(
    block: DecoderBlock, x: Tensor, y: Tensor, rotary_x: RotaryTable, rotary_y: RotaryTable
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """As the block itself, by way of its logits.

    Returns:
        The new x [B, T, W]; the logits among x [B, heads, T, T] and of x over y [B, heads, T, K].
    """
    own, cross = block.attn, block.cross_attn
    q, k, v = own.qkv(block.norm1(x)).unflatten(-1, (3, own.heads, -1)).unbind(2)
    read, own_map = attend_with_map(rotate(q, rotary_x), rotate(k, rotary_x), v)
    x = x + own.proj(read)
    normed_x, normed_y = block.norm2(x), block.norm_y(y)
    q, k, v = (
        projection(tokens).unflatten(-1, (cross.heads, -1))
        for projection, tokens in (
            (cross.projq, normed_x),
            (cross.projk, normed_y),
            (cross.projv, normed_y),
        )
    )
    read, cross_map = attend_with_map(rotate(q, rotary_x), rotate(k, rotary_y), v)
    x = x + cross.proj(read)
    return x + block.mlp(block.norm3(x)), (own_map, cross_map)


def attend_with_map(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention of [B, T, heads, d] over [B, K, heads, d], with everything written out.

    Returns:
        What was read [B, T, heads * d]; a copy of the scaled logits [B, heads, T, K].
    """
    q, k, v = (x.transpose(1, 2) for x in (queries, keys, values))
    logits = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    kept = logits.clone()
    read = logits.softmax(dim=-1).to(v.dtype) @ v
    return read.transpose(1, 2).flatten(2), kept


def _unused(config: NetworkConfig) -> nn.ModuleList:
    width, patch = config.enc_embed_dim, config.patch_size
    parts: list[nn.Module] = [
        nn.Conv2d(6, width, patch, patch),
        *(EncoderBlock(width, config.enc_num_heads, config.mlp_ratio) for _ in range(2)),
        layer_norm(width),
    ]
    if config.head_type == "dpt":
        parts += [FusionBlock(merges=True).resConfUnit1 for _ in range(3)]
    return nn.ModuleList(parts)


class Contestant:
    """A network with its own state, fed images from the host."""

    def __init__(self, network: Network, device: torch.device) -> None:
        """Start before the first image."""
        self.network, self._device = network, device
        self._stepped = (
            network if isinstance(network, AsShipped) else accelerated(network, "auto", device)
        )
        with torch.inference_mode():
            self.state = network.initial_state()
        self.seen: Prediction | None = None

    @torch.inference_mode()
    def take(self, image: Tensor) -> None:
        """One step."""
        if isinstance(self._stepped, AsShipped):  # brings the image over by itself
            self.state, self.seen = self._stepped.step(self.state, image)
        else:
            features = self._stepped.encode(image.to(self._device, non_blocking=True))
            self.state, self.seen = self._stepped.advance(self.state, features)

    @torch.inference_mode()
    def operations(self, image: Tensor) -> int:
        """Floating-point operations of a step as it is, whatever runs it."""
        shown = image if isinstance(self.network, AsShipped) else image.to(self._device)
        return timing.operations(lambda: self.network.step(self.state, shown))


def run_alone(size_name: str, device: torch.device, dtype: str, who: str) -> dict[str, Any]:
    """What one contestant needs in this process: peak memory and kept state after three images."""
    config = SIZES[size_name].config
    with shapes_only():
        network = Network(config) if who == OURS else AsShipped(config, Extras.all())
    random_weights(network, device)
    if who == OURS:
        prepare(network, dtype, device)
    one = Contestant(network, device)
    for _ in range(3):
        one.take(SIZES[size_name].image())
    return {
        "memory_bytes": timing.memory_bytes(device),
        "state_bytes": timing.state_bytes(one.state),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def in_process_of_its_own(arguments: argparse.Namespace, who: str) -> dict[str, Any]:
    """As `run_alone`, by this file run anew."""
    words = [sys.executable, __file__, "--alone", who]
    for name in ("size", "device", "dtype", "threads"):
        words += [f"--{name}", str(getattr(arguments, name))]
    return dict(json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout))


def compare(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure; yield one row with both contestants."""
    device, size = torch.device(arguments.device), SIZES[arguments.size]
    rows = {name: in_process_of_its_own(arguments, name) for name in (OURS, BASELINE)}
    with shapes_only():
        exact, shipped = Network(size.config), AsShipped(size.config, Extras.all())
    share_random_weights(shipped, [exact], device)
    shipped.tf32 = device.type == "cuda"
    ours = in_precision(exact, arguments.dtype, device)
    both = {OURS: Contestant(ours, device), BASELINE: Contestant(shipped, device)}
    image = size.image()
    for name, one in both.items():
        rows[name]["gflop"] = one.operations(image) / 1e9
        one.take(image)
    calls = {name: partial(one.take, image) for name, one in both.items()}
    for name, times in timing.in_turns(calls, arguments.images, device).items():
        for kind, seconds in zip(KINDS, zip(*times, strict=True), strict=True):
            median_ms, p95_ms = timing.quantiles(seconds)
            rows[name] |= {f"{kind}_median_s": median_ms / 1e3, f"{kind}_p95_s": p95_ms / 1e3}
    names = ("wall_median_s", "cpu_median_s", "gflop")
    yield {
        "size": arguments.size,
        "dtype": arguments.dtype,
        "images": arguments.images,
        "rows": rows,
        "ratio": {key: rows[BASELINE][key] / rows[OURS][key] for key in names},
    }


def markdown(results: Sequence[dict[str, Any]]) -> list[str]:
    """The table."""
    lines = []
    for result in results:
        ratio, rows = result["ratio"], result["rows"]
        cells = [
            [
                name,
                *(f"{r[f'{kind}_median_s']:.2f} ({r[f'{kind}_p95_s']:.2f})" for kind in KINDS),
                timing.in_gigabytes(r["memory_bytes"]),
                f"{r['parameters'] / 1e6:.1f}",
                f"{r['gflop']:.1f}",
            ]
            for name, r in rows.items()
        ]
        times = [f"{ratio[f'{kind}_median_s']:.2f}" for kind in KINDS]
        cells.append(["ratio", *times, "", "", f"{ratio['gflop']:.2f}"])
        heads = [f"{result['size']}, {result['dtype']}"]
        heads += [f"{kind} s, median (p95)" for kind in KINDS]
        lines += table([*heads, "peak memory, GB", "parameters, M", "GFLOP"], cells)
        state_mb = rows[OURS]["state_bytes"] / 1e6
        lines.append(f"{result['images']} images in turns. State {state_mb:.2f} MB.")
    return lines


def main(words: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints."""
    parser = timing.parser("Time our step beside the published arithmetic.")
    add = parser.add_argument
    add("--size", choices=SIZES, default="512x384")
    add("--dtype", choices=("auto", *PRECISIONS), default="auto", help="of our step")
    add("--images", type=int, default=5, help="counted steps of each")
    add("--alone", choices=(OURS, BASELINE), help="only the memory of one of them")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        device = torch.device(arguments.device)
        print(json.dumps(run_alone(arguments.size, device, arguments.dtype, arguments.alone)))
        return
    timing.show(compare(arguments), markdown, arguments.device, arguments.json)


if __name__ == "__main__":
    main()
