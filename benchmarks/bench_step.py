# SPDX-License-Identifier: Apache-2.0
"""Time and memory of one step at the sizes of the two published files, with random weights.

    python benchmarks/bench_step.py --size 512x384 --device cuda --dtype bfloat16 --images 50

The whole step is timed as the node runs it; its parts are timed by themselves on the same inputs,
so they need not add up to it. The first images warm up and are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from typing import Any

import torch

from ttt3r_ros.evaluation import circumstances
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network

# The published files by the image they are fed: (width, height) and the head.
SIZES = {"512x384": ((512, 384), "dpt"), "224x224": ((224, 224), "linear")}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def random_network(head_type: str, device: torch.device) -> Network:
    """A network of the published dimensions, each weight drawn so that activations stay near 1."""
    config = NetworkConfig(
        enc_embed_dim=1024,
        enc_depth=24,
        enc_num_heads=16,
        dec_embed_dim=768,
        dec_depth=12,
        dec_num_heads=12,
        state_size=768,
        head_type=head_type,
    )
    with torch.device("meta"):
        network = Network(config)
    # Without gradients, as a loaded network: it decides whether autocast keeps cast weights.
    network = network.to_empty(device=device).requires_grad_(False).eval()
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:  # the gain of a normalisation, or a bias
            parameter.data.fill_(float("norm" in name and name.endswith("weight")))
        else:
            bound = float(parameter[0].numel()) ** -0.5
            parameter.data.uniform_(-bound, bound)
    return network


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, with nothing else in the device's queue."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(network: Network, image: torch.Tensor, images: int) -> dict[str, list[float]]:
    """Seconds per call of the step and of its parts, by name."""
    state = network.initial_state()
    features = network.encode(image)
    state, _ = network.advance(state, features)
    memory = network.pose_retriever
    appearance = memory.appearance(features.flatten(1, 2))
    pose_token = memory.read(state.memory, appearance)
    _, layers, beta = network.decode(state.tokens, pose_token, features)
    calls: dict[str, Callable[[], object]] = {
        "step": lambda: network.step(state, image),
        "encode": lambda: network.encode(image),
        "memory read": lambda: memory.read(state.memory, memory.appearance(features.flatten(1, 2))),
        "decode (both streams)": lambda: network.decode(state.tokens, pose_token, features),
        "memory write": lambda: memory.write(state.memory, appearance, layers[-1][:, :1]),
        "heads": lambda: network.predict(features, layers, beta),
    }
    warm_up = 5 if image.device.type == "cuda" else 1
    times: dict[str, list[float]] = {name: [] for name in calls}
    # Step and parts in turn, so that whatever else the machine does meets all of them.
    for index in range(warm_up + images):
        for name, call in calls.items():
            elapsed = seconds(call, image.device)
            if index >= warm_up:
                times[name].append(elapsed)
    return times


def peak_memory_bytes(device: torch.device) -> int:
    """The most this process held: allocated on a GPU, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures and returns what `--json` prints."""
    device = torch.device(arguments.device)
    (width, height), head_type = SIZES[arguments.size]
    network = random_network(head_type, device)
    image = torch.rand(1, 3, height, width, device=device) * 2 - 1
    precision: AbstractContextManager[None] = nullcontext()
    if arguments.dtype != "float32":
        precision = torch.autocast(device.type, DTYPES[arguments.dtype])
    with torch.inference_mode(), precision:
        times = measure(network, image, arguments.images)
    parts = {}
    for name, values in times.items():
        quantiles = torch.tensor(values, dtype=torch.float64).quantile(
            torch.tensor([0.5, 0.95], dtype=torch.float64)
        )
        parts[name] = {"median_ms": 1e3 * float(quantiles[0]), "p95_ms": 1e3 * float(quantiles[1])}
    return {
        "size": arguments.size,
        "head": head_type,
        "dtype": arguments.dtype,
        "images": arguments.images,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "peak_memory_bytes": peak_memory_bytes(device),
        "hardware": circumstances.described(device),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "date": date.today().isoformat(),
        "commit": circumstances.commit(),
        "parts": parts,
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a table with its circumstances below."""
    step = result["parts"]["step"]["median_ms"]
    lines = [
        f"| {result['size']} {result['head']}, {result['dtype']} | median ms | p95 ms | share |",
        "|---|---|---|---|",
    ]
    for name, part in result["parts"].items():
        share = f"{part['median_ms'] / step:.1%}"
        lines.append(f"| {name} | {part['median_ms']:.1f} | {part['p95_ms']:.1f} | {share} |")
    lines += [
        "",
        f"{result['images']} images after warm-up, {result['parameters'] / 1e6:.1f} M parameters, "
        f"peak memory {result['peak_memory_bytes'] / 1e9:.2f} GB. {result['hardware']}, "
        f"load average {result['load_average']:.1f}, torch {result['torch']}, {result['date']}, "
        f"commit {result['commit']}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description="Time one step of the network.")
    parser.add_argument("--size", choices=SIZES, default="512x384")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--images", type=int, default=10, help="counted calls per part")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    result = run(arguments)
    print(json.dumps(result, indent=2) if arguments.json else markdown(result))


if __name__ == "__main__":
    main()
