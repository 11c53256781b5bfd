# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one step at the sizes of the two published files, with random weights.

    python benchmarks/bench_step.py --size 512x384 224x224 --with-each
    python benchmarks/bench_step.py --device cuda --dtype tf32 bfloat16 --images 50

The whole step is timed as the node runs it; its parts are timed by themselves on the same inputs,
so they need not add up to it. Each `--with-...` adds a row: the step with one piece of work of the
published implementation that ours leaves out, see `as_shipped.py`; it has float32 and TF32 only.
`--acceleration` adds the step as it is run with that setting. All rows take turns. The first
call of each, on a GPU the first six, warms up; in it torch's flop counter counts operations.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.as_shipped import AsShipped, Extras
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.loading import prepare
from ttt3r_ros.network.acceleration import ACCELERATIONS, accelerated
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import LOWER, PRECISIONS, tf32_products
from ttt3r_ros.network.recorded import RecordedNetwork
from ttt3r_ros.network.state import UPDATE_RULES, RecurrentState, find_update_rule


@dataclass(frozen=True, slots=True)
class Size:
    """An image's size and the network for it."""

    width: int
    height: int
    config: NetworkConfig

    def image(self) -> Tensor:
        """A random image, [1, 3, H, W]."""
        return torch.rand(1, 3, self.height, self.width) * 2 - 1


def _published(head_type: str) -> NetworkConfig:
    return NetworkConfig(
        enc_embed_dim=1024,
        enc_depth=24,
        enc_num_heads=16,
        dec_embed_dim=768,
        dec_depth=12,
        dec_num_heads=12,
        state_size=768,
        head_type=head_type,
    )


def _tiny(head_type: str) -> NetworkConfig:
    return NetworkConfig(
        enc_embed_dim=32,
        enc_depth=2,
        enc_num_heads=2,
        dec_embed_dim=48,
        dec_depth=4,
        dec_num_heads=3,
        state_size=10,
        state_dec_num_heads=4,
        local_mem_size=6,
        head_type=head_type,
    )


# The published files by the image they are fed; and sizes to try a benchmark with.
SIZES = {
    "512x384": Size(512, 384, _published("dpt")),
    "224x224": Size(224, 224, _published("linear")),
    "tiny-dpt": Size(48, 32, _tiny("dpt")),
    "tiny-linear": Size(48, 32, _tiny("linear")),
}


def random_weights(network: nn.Module, device: torch.device) -> None:
    """Give a network on the meta device weights, each drawn so that activations stay near 1."""
    network.to_empty(device=device).requires_grad_(False).eval()
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:  # the gain of a normalisation, or a bias
            parameter.data.fill_(float("norm" in name and name.endswith("weight")))
        else:
            bound = float(parameter[0].numel()) ** -0.5
            parameter.data.uniform_(-bound, bound)


def ours_and_with(
    config: NetworkConfig, extras: Sequence[Extras], device: torch.device
) -> tuple[Network, list[AsShipped]]:
    """Our network and ones that do extra work, of random weights that exist once in memory."""
    with torch.device("meta"):
        ours, everything = Network(config), AsShipped(config, Extras.all())
        others = [AsShipped(config, extra) for extra in extras]
    random_weights(everything if others else ours, device)
    weights = (everything if others else ours).state_dict()
    for network in (ours, *others):
        own = {name: weights[name] for name in network.state_dict()}
        network.load_state_dict(own, assign=True)
        network.requires_grad_(False).eval()
    return ours, others


def in_precision(network: Network, dtype: str, device: torch.device) -> Network:
    """A network of the same weights that multiplies as the setting `dtype` says."""
    with torch.device("meta"):
        other = Network(network.config)
    other.load_state_dict(network.state_dict(), assign=True)
    prepare(other.requires_grad_(False).eval(), dtype, device)
    return other


def spent(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall and CPU seconds of one call, with nothing else in the device's queue."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of a call's matrix products and convolutions."""
    own: dict[Any, Any] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations
    }
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        own[torch.ops.mkldnn._linear_pointwise] = _linear_operations
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        call()
    return int(counter.get_total_flops())


def _linear_operations(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return int(2 * x[:-1].numel() * weight.numel())


def _attention_operations(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class Row:
    """What is timed."""

    call: Callable[[], object]
    holders: tuple[nn.Module | nn.Parameter, ...] = ()  # of the weights that are used
    states: tuple[Tensor, ...] = ()  # read and replaced
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


def state_bytes(state: RecurrentState) -> int:
    """What a stream keeps from image to image."""
    return sum(tensor.nbytes for tensor in state.to_tensors().values())


def measure(rows: dict[str, Row], images: int, device: torch.device) -> None:
    """Fill in operations, by a first call of each, and times of further calls, all in turn."""
    for row in rows.values():
        row.operations = operations(row.call)
    warm_up = 5 if device.type == "cuda" else 0
    for index in range(warm_up + images):
        for row in rows.values():
            times = spent(row.call, device)
            if index >= warm_up:
                row.times.append(times)


def quantiles(times: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile in milliseconds."""
    wanted = torch.tensor([0.5, 0.95], dtype=torch.float64)
    median, p95 = torch.tensor(times, dtype=torch.float64).quantile(wanted).tolist()
    return 1e3 * median, 1e3 * p95


def reset_memory(device: torch.device) -> None:
    """Let `memory_bytes` begin anew on a GPU; what a process has ever held cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_bytes(device: torch.device) -> dict[str, int]:
    """The most this process held so far: allocated and reserved on a GPU, resident on the CPU."""
    if device.type == "cuda":
        return {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
    return {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def in_gigabytes(memory: dict[str, int]) -> str:
    """`memory_bytes` in words."""
    return ", ".join(f"{count / 1e9:.2f} {kind}" for kind, count in memory.items())


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
        reset_memory(device)
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
                rows[f"step, {how}"] = step_row(fast, state, image)
            for name, other in zip(names, others, strict=True):
                if dtype in LOWER:
                    continue
                other.tf32 = ours.tf32
                shown = on_host if other.extras.transfers else image
                rows[f"step with {name.replace('_', ' ')}"] = step_row(other, state, shown)
            measure(rows, arguments.images, device)
        yield {
            "size": size_name,
            "head": size.config.head_type,
            "dtype": dtype,
            "images": arguments.images,
            "parameters": sum(parameter.numel() for parameter in ours.parameters()),
            "memory_bytes": memory_bytes(device),
            "state_bytes": kept,
            "rows": {name: result_of(row) for name, row in rows.items()},
        }


def step_row(network: Network | RecordedNetwork, state: RecurrentState, image: Tensor) -> Row:
    """A whole step, with all weights of the network."""
    states = (state.tokens, state.memory)
    if isinstance(network, RecordedNetwork):
        recorded, holder = network, network.network
        return Row(lambda: recorded.advance(state, recorded.encode(image)), (holder,), states)
    return Row(lambda: network.step(state, image), (network,), states)


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


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns what `--json` prints."""
    device = torch.device(arguments.device)
    return {
        "tables": [table for size in arguments.size for table in bench_size(arguments, size)],
        "hardware": run_metadata.described(device),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "commit": run_metadata.commit(),
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as tables with their run_metadata below."""
    lines = []
    for table in result["tables"]:
        step = table["rows"]["step"]
        lines += [
            f"| {table['size']} {table['head']}, {table['dtype']} | median ms | p95 ms | CPU ms "
            "| of a step | GFLOP | least MB | GFLOP/s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, row in table["rows"].items():
            share = row["cpu_median_ms"] / step["cpu_median_ms"]
            lines.append(
                f"| {name} | {row['median_ms']:.1f} | {row['p95_ms']:.1f} | "
                f"{row['cpu_median_ms']:.1f} | {share:.3f} | {row['gflop']:.1f} | "
                f"{row['least_bytes'] / 1e6:.1f} | {row['gflop'] / row['median_ms'] * 1e3:.0f} |"
            )
        states = ", ".join(f"{rule} {count}" for rule, count in table["state_bytes"].items())
        lines += [
            "",
            f"{table['images']} calls of each, {table['parameters'] / 1e6:.1f} M parameters, "
            f"peak memory in GB {in_gigabytes(table['memory_bytes'])}, state in bytes: {states}.",
            "",
        ]
    lines.append(
        f"Shares are of CPU time. {result['hardware']}, load average "
        f"{result['load_average']:.1f}, torch {result['torch']}, {result['date']}, "
        f"commit {result['commit']}."
    )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description="Time one step of the network.")
    add = parser.add_argument
    add("--size", choices=SIZES, nargs="+", default=["512x384"])
    add("--device", default="cpu", help="cpu or cuda")
    add("--dtype", choices=PRECISIONS, nargs="+", default=["float32"])
    add("--acceleration", choices=ACCELERATIONS, nargs="+", default=[], help="rows to add")
    add("--rule", choices=UPDATE_RULES, nargs="+", default=["ttt3r"], help="update rules")
    add("--images", type=int, default=10, help="counted calls per row")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch on the CPU")
    add("--with-each", action="store_true", help="each of the following, a row for each")
    for name in Extras.names():
        add(f"--with-{name.replace('_', '-')}", dest=name, action="store_true")
    add("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    result = run(arguments)
    print(json.dumps(result, indent=2) if arguments.json else markdown(result))


if __name__ == "__main__":
    main()
