# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one step at the sizes of the two published files, with random weights.

    python benchmarks/bench_step.py --size 512x384 224x224 --with-each
    python benchmarks/bench_step.py --device cuda --dtype tf32 bfloat16 --images 50

The whole step is timed as the node runs it; its parts are timed by themselves on the same inputs,
so they need not add up to it. Each `--with-...` adds a row: the step with one piece of work of the
published implementation that ours leaves out, see `bench_baseline.py`; it has float32 and TF32
only. `--acceleration` adds the step as it is run with that setting. All rows take turns. The first
call of each, on a GPU the first six, warms up; in it torch's flop counter counts operations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

import torch
from torch import Tensor, nn

from benchmarks import timing
from benchmarks.bench_baseline import AsShipped, Extras
from benchmarks.harness import table
from benchmarks.networks import SIZES, in_precision, share_random_weights
from benchmarks.timing import operations, quantiles, state_bytes
from ttt3r_ros.network.acceleration import ACCELERATIONS, accelerated
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import LOWER, PRECISIONS, tf32_products
from ttt3r_ros.network.recorded import RecordedNetwork
from ttt3r_ros.network.shapes_only import shapes_only
from ttt3r_ros.network.state import UPDATE_RULES, RecurrentState, find_update_rule


def ours_and_with(
    config: NetworkConfig, extras: Sequence[Extras], device: torch.device
) -> tuple[Network, list[AsShipped]]:
    """Our network and ones that do extra work, of random weights that exist once in memory."""
    with shapes_only():
        ours, everything = Network(config), AsShipped(config, Extras.all())
        others = [AsShipped(config, extra) for extra in extras]
    if others:
        share_random_weights(everything, [ours, *others], device)
    else:
        share_random_weights(ours, [], device)
    return ours, others


@dataclass(slots=True)
class Row:
    """What is timed."""

    call: Callable[[], object]
    holders: tuple[nn.Module | nn.Parameter, ...] = ()  # of the weights that are used
    states: tuple[Tensor, ...] = ()  # read and replaced
    # Its operations are counted of this: a recording calls what it records several times.
    plain: Callable[[], object] | None = None
    operations: int = 0
    times: list[tuple[float, float]] = field(default_factory=list)  # wall and CPU seconds

    def least_bytes(self) -> int:
        """Bytes that must move at the least: each weight once, the state in and out."""
        weights = chain.from_iterable(
            (holder,) if isinstance(holder, nn.Parameter) else holder.parameters()
            for holder in self.holders
        )
        return sum(w.nbytes for w in weights) + 2 * sum(tensor.nbytes for tensor in self.states)


def parts_of(network: Network, state: RecurrentState, image: Tensor) -> dict[str, Row]:
    """The step and its parts, by name; the state is one after the first image."""
    features = network.encode(image)
    memory, head = network.pose_retriever, network.downstream_head
    appearance = memory.appearance(features.flatten(1, 2))
    pose_token = memory.read(state.memory, appearance)
    _, layers, beta = network.decode(state.tokens, pose_token, features)
    first = network.initial_state()
    encoder = (network.patch_embed, network.enc_blocks, network.enc_norm)
    reader = (memory.proj_q, memory.masked_token, memory.read_blocks)
    decoder = (
        *(network.decoder_embed, network.dec_blocks, network.dec_norm),
        *(network.dec_blocks_state, network.dec_norm_state),
    )
    writer = (memory.write_blocks,)
    return {
        "step": Row(
            lambda: network.step(state, image),
            (*encoder, *reader, *decoder, *writer, head),
            (state.tokens, state.memory),
        ),
        "encode": Row(lambda: network.encode(image), encoder),
        "memory read": Row(
            lambda: memory.read(state.memory, memory.appearance(features.flatten(1, 2))), reader
        ),
        "decode (both streams)": Row(
            lambda: network.decode(state.tokens, pose_token, features), decoder, (state.tokens,)
        ),
        "memory write": Row(
            lambda: memory.write(state.memory, appearance, layers[-1][:, :1]),
            writer,
            (state.memory,),
        ),
        "heads": Row(lambda: network.predict(features, layers, beta), (head,)),
        # Where the state is reset an image is seen again: its features are there, and nobody
        # needs what the heads say.
        "second view at a reset": Row(
            lambda: network.advance(first, features, heads=False),
            (*reader, *decoder, *writer),
            (state.tokens, state.memory),
        ),
    }


def measure(rows: dict[str, Row], images: int, device: torch.device) -> None:
    """Fill in operations, by a first call of each, and times of further calls, all in turn."""
    for row in rows.values():
        row.operations = operations(row.plain or row.call)
        if row.plain:
            row.call()
    calls = {name: row.call for name, row in rows.items()}
    for name, times in timing.in_turns(calls, images, device).items():
        rows[name].times = times


def bench_size(arguments: argparse.Namespace, size_name: str) -> Iterator[dict[str, Any]]:
    """Measure one size, a table for each dtype."""
    device, size = torch.device(arguments.device), SIZES[size_name]
    names = [name for name in Extras.names() if arguments.with_each or getattr(arguments, name)]
    if size.config.head_type != "dpt":
        names = [name for name in names if name != "late_projections"]  # it has none
    extras = [Extras(**{name: True}) for name in names]
    exact, others = ours_and_with(size.config, extras, device)
    on_host = size.image()
    image = on_host.to(device)
    for dtype in arguments.dtype:
        timing.reset_memory(device)
        ours = in_precision(exact, dtype, device)
        with torch.inference_mode(), tf32_products(ours.tf32):
            state, _ = ours.step(ours.initial_state(), image)
            rows = parts_of(ours, state, image)
            kept = {}
            for rule in arguments.rule:
                network = Network.__new__(Network)  # the same weights, another rule
                network.__dict__.update(ours.__dict__)
                network.update_rule = find_update_rule(rule)
                after, _ = network.step(network.initial_state(), image)
                kept[rule] = state_bytes(after)
                if rule != "ttt3r":
                    rows[f"step, {rule}"] = step_row(network, after, image)
            for how in arguments.acceleration:
                fast = accelerated(in_precision(exact, dtype, device), how, device)
                rows[f"step, {how}"] = step_row(fast, state, image, plain=rows["step"].call)
            for name, other in zip(names, others, strict=True):
                if dtype in LOWER:
                    continue
                other.tf32 = ours.tf32
                shown = on_host if other.extras.transfers else image
                rows[f"step with {name.replace('_', ' ')}"] = step_row(other, state, shown)
            measure(rows, arguments.images, device)
        yield {
            "size": f"{size_name} {size.config.head_type}",
            "dtype": dtype,
            "images": arguments.images,
            "parameters": sum(parameter.numel() for parameter in ours.parameters()),
            "memory_bytes": timing.memory_bytes(device),
            "state_bytes": kept,
            "rows": {name: result_of(row) for name, row in rows.items()},
        }


def step_row(
    network: Network | RecordedNetwork,
    state: RecurrentState,
    image: Tensor,
    plain: Callable[[], object] | None = None,
) -> Row:
    """A whole step, with all weights of the network; operations are those of `plain`, if given."""
    states = (state.tokens, state.memory)
    if isinstance(network, RecordedNetwork):
        recorded, holder = network, network.network
        return Row(
            lambda: recorded.advance(state, recorded.encode(image)), (holder,), states, plain
        )
    return Row(lambda: network.step(state, image), (network,), states, plain)


def result_of(row: Row) -> dict[str, float]:
    """One row as `--json` prints it."""
    wall, cpu = zip(*row.times, strict=True)
    (median, p95), (cpu_median, _) = quantiles(wall), quantiles(cpu)
    return {
        "median_ms": median,
        "p95_ms": p95,
        "cpu_median_ms": cpu_median,
        "gflop": row.operations / 1e9,
        "least_bytes": row.least_bytes(),
    }


def markdown(tables: Sequence[dict[str, Any]]) -> list[str]:
    """A table for each size and dtype."""
    lines = []
    for result in tables:
        step = result["rows"]["step"]
        heads = [f"{result['size']}, {result['dtype']}", "median ms", "p95 ms", "CPU ms"]
        lines += table(
            [*heads, "of a step", "GFLOP", "least MB", "GFLOP/s"],
            (
                [
                    name,
                    *(f"{row[f'{kind}_ms']:.1f}" for kind in ("median", "p95", "cpu_median")),
                    f"{row['cpu_median_ms'] / step['cpu_median_ms']:.3f}",
                    f"{row['gflop']:.1f}",
                    f"{row['least_bytes'] / 1e6:.1f}",
                    f"{row['gflop'] / row['median_ms'] * 1e3:.0f}",
                ]
                for name, row in result["rows"].items()
            ),
        )
        states = ", ".join(f"{rule} {count}" for rule, count in result["state_bytes"].items())
        lines += [
            f"{result['images']} calls of each, {result['parameters'] / 1e6:.1f} M parameters, "
            f"peak memory in GB {timing.in_gigabytes(result['memory_bytes'])}, state in bytes: "
            f"{states}. Shares are of CPU time.",
            "",
        ]
    return lines


def main(words: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints."""
    parser = timing.parser("Time one step of the network.")
    add = parser.add_argument
    add("--size", choices=SIZES, nargs="+", default=["512x384"])
    add("--dtype", choices=PRECISIONS, nargs="+", default=["float32"])
    add("--acceleration", choices=ACCELERATIONS, nargs="+", default=[], help="rows to add")
    add("--rule", choices=UPDATE_RULES, nargs="+", default=["ttt3r"], help="update rules")
    add("--images", type=int, default=10, help="counted calls per row")
    add("--with-each", action="store_true", help="each of the following, a row for each")
    for name in Extras.names():
        add(f"--with-{name.replace('_', '-')}", dest=name, action="store_true")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    tables = (table for size in arguments.size for table in bench_size(arguments, size))
    timing.show(tables, markdown, arguments.device, arguments.json)


if __name__ == "__main__":
    main()
