# SPDX-License-Identifier: Apache-2.0
"""Our step beside the arithmetic as it is published, same weights and images, in one run.

    python benchmarks/bench_baseline.py --size 512x384 --images 5

The yardstick is `as_shipped.AsShipped` with all extra work, in float32 (TF32 on a GPU): attention
maps in both decoders, all heads, projections without effect, transfers that block. Ours runs as the
node runs it, on a GPU recorded as CUDA graphs. Both take each image in turn, in changing order. CPU
seconds count all threads and suffer less from what else the machine does than wall seconds. Peak
memory is that of a process of its own for each, before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

import torch
from torch import Tensor

from benchmarks import bench_step
from benchmarks.as_shipped import AsShipped, Extras
from benchmarks.bench_step import SIZES, in_gigabytes, quantiles, spent
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.loading import prepare
from ttt3r_ros.network.acceleration import accelerated
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import PRECISIONS
from ttt3r_ros.network.prediction import Prediction

OURS, BASELINE = "ours", "as shipped"


class Contestant:
    """A network with its own state, fed images from the host."""

    def __init__(self, network: Network, device: torch.device) -> None:
        """Start before the first image."""
        self._network, self._device = network, device
        self._stepped = (
            network if isinstance(network, AsShipped) else accelerated(network, "auto", device)
        )
        with torch.inference_mode():
            self.state = network.initial_state()
        self.seen: Prediction | None = None

    def take(self, image: Tensor) -> None:
        """One step."""
        with torch.inference_mode():
            if isinstance(self._stepped, AsShipped):  # brings the image over by itself
                self.state, self.seen = self._stepped.step(self.state, image)
            else:
                features = self._stepped.encode(image.to(self._device, non_blocking=True))
                self.state, self.seen = self._stepped.advance(self.state, features)


def contestants(size_name: str, device: torch.device, dtype: str) -> dict[str, Contestant]:
    """Both, of the same weights."""
    config = SIZES[size_name].config
    exact, (shipped,) = bench_step.ours_and_with(config, [Extras.all()], device)
    shipped.tf32 = device.type == "cuda"
    ours = bench_step.in_precision(exact, dtype, device)
    return {OURS: Contestant(ours, device), BASELINE: Contestant(shipped, device)}


def difference(a: Contestant, b: Contestant) -> float:
    """The greatest difference of two results and states, relative to 1 + what it is about."""
    pairs = [*zip(results(a), results(b), strict=True)]
    return max(float(((x - y).abs() / (1 + y.abs())).max()) for x, y in pairs)


def results(contestant: Contestant) -> list[Tensor]:
    """What our step gives: prediction and state."""
    seen, state = contestant.seen, contestant.state
    if seen is None:
        raise ValueError("no image was taken yet")
    given = [getattr(seen, field.name) for field in fields(seen) if "world" not in field.name]
    return [tensor.cpu() for tensor in (*given, state.tokens, state.memory)]


def measure(
    both: dict[str, Contestant], image: Callable[[], Tensor], images: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each step after one at least; a GPU warms up with five more."""
    warm_up = 5 if device.type == "cuda" else 0
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in both}
    for index in range(warm_up + images):
        shown = image()
        for name in sorted(both, reverse=bool(index % 2)):
            elapsed = spent(partial(both[name].take, shown), device)
            if index >= warm_up:
                times[name].append(elapsed)
    return times


def run_alone(size_name: str, device: torch.device, dtype: str, who: str) -> dict[str, Any]:
    """What one contestant needs in this process: peak memory and kept state after three images."""
    config = SIZES[size_name].config
    with torch.device("meta"):
        network = Network(config) if who == OURS else AsShipped(config, Extras.all())
    bench_step.random_weights(network, device)
    if who == OURS:
        prepare(network, dtype, device)
    one = Contestant(network, device)
    for _ in range(3):
        one.take(SIZES[size_name].image())
    return {
        "memory_bytes": bench_step.memory_bytes(device),
        "state_bytes": bench_step.state_bytes(one.state),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def in_process_of_its_own(arguments: argparse.Namespace, who: str) -> dict[str, Any]:
    """As `run_alone`, by this file run anew."""
    words = [sys.executable, __file__, "--alone", who, "--json"]
    for name in ("size", "device", "dtype", "threads"):
        words += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns what `--json` prints."""
    device, size = torch.device(arguments.device), SIZES[arguments.size]
    rows: dict[str, dict[str, Any]] = {
        name: dict(in_process_of_its_own(arguments, name)) for name in (OURS, BASELINE)
    }
    both = contestants(arguments.size, device, arguments.dtype)
    image = size.image()
    for name, one in both.items():
        rows[name]["gflop"] = bench_step.operations(partial(one.take, image)) / 1e9
    different = difference(both[OURS], both[BASELINE])
    for name, times in measure(both, size.image, arguments.images, device).items():
        wall, cpu = ([pair[k] for pair in times] for k in (0, 1))
        for kind, seconds in (("wall", wall), ("cpu", cpu)):
            median, p95 = quantiles(seconds)
            rows[name] |= {f"{kind}_median_s": median / 1e3, f"{kind}_p95_s": p95 / 1e3}
    return {
        "size": arguments.size,
        "head": size.config.head_type,
        "dtype": arguments.dtype,
        "images": arguments.images,
        "rows": rows,
        "ratio": {
            key: rows[BASELINE][key] / rows[OURS][key]
            for key in ("wall_median_s", "cpu_median_s", "gflop")
        },
        "state_bytes": rows[OURS]["state_bytes"],
        "max_difference": different,
        "hardware": run_metadata.described(device),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "commit": run_metadata.commit(),
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a table with its run_metadata below."""
    lines = [
        f"| {result['size']} {result['head']}, {result['dtype']} | CPU s, median (p95) "
        "| wall s, median (p95) | peak memory, GB | parameters, M | GFLOP |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        lines.append(
            f"| {name} | {row['cpu_median_s']:.2f} ({row['cpu_p95_s']:.2f}) "
            f"| {row['wall_median_s']:.2f} ({row['wall_p95_s']:.2f}) "
            f"| {in_gigabytes(row['memory_bytes'])} | {row['parameters'] / 1e6:.1f} "
            f"| {row['gflop']:.1f} |"
        )
    ratio = result["ratio"]
    lines += [
        f"| ratio | **{ratio['cpu_median_s']:.2f}** | {ratio['wall_median_s']:.2f} "
        f"| | | {ratio['gflop']:.2f} |",
        "",
        f"{result['images']} images in turns. State {result['state_bytes'] / 1e6:.2f} MB; results "
        f"differ by {result['max_difference']:.1e} at most. {result['hardware']}, load average "
        f"{result['load_average']:.1f}, torch {result['torch']}, {result['date']}, "
        f"commit {result['commit']}.",
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description="Time our step beside the published arithmetic.")
    add = parser.add_argument
    add("--size", choices=SIZES, default="512x384")
    add("--device", default="cpu", help="cpu or cuda")
    add("--dtype", choices=("auto", *PRECISIONS), default="auto", help="of our step")
    add("--images", type=int, default=5, help="counted steps of each")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch on the CPU")
    add("--alone", choices=(OURS, BASELINE), help="only the memory of one of them")
    add("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        device = torch.device(arguments.device)
        found = run_alone(arguments.size, device, arguments.dtype, arguments.alone)
        print(json.dumps(found))
        return
    result = run(arguments)
    print(json.dumps(result, indent=2) if arguments.json else markdown(result))


if __name__ == "__main__":
    main()
