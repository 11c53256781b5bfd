# SPDX-License-Identifier: Apache-2.0
"""Images per second of the procedural renderer: one large picture, and batches of small ones.

    python benchmarks/bench_renderer.py --threads 1
    python benchmarks/bench_renderer.py --compile --device cuda --rooms 64

Poses change with every call, as they do in use; drawing rooms is timed by itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date
from functools import partial

import torch

from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.simulation import make_rooms, make_trajectory, render


def seconds(call: Callable[[int], object], repeats: int, device: torch.device) -> list[float]:
    """Wall time of each of `repeats` calls, given their number, after three to warm up."""
    times = []
    for index in range(-3, repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call(index)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if index >= 0:
            times.append(time.perf_counter() - start)
    return times


def report(name: str, images: int, times: list[float]) -> None:
    """One line: median and 95th percentile of a call, and images per second at the median."""
    median = statistics.median(times)
    p95 = sorted(times)[max(0, round(0.95 * len(times)) - 1)]
    rate = images / median
    print(f"{name:28s} median {1e3 * median:8.2f} ms  p95 {1e3 * p95:8.2f} ms  {rate:9.1f} /s")


def cycle(
    picture: Callable[..., object], poses: list[torch.Tensor], rest: tuple[object, ...], index: int
) -> object:
    """The picture from the pose whose turn it is."""
    return picture(poses[index % len(poses)], *rest)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads; without it, torch's own choice")
    parser.add_argument("--compile", action="store_true", help="wrap the renderer in torch.compile")
    parser.add_argument("--rooms", type=int, default=4, help="rooms in a batch of small pictures")
    parser.add_argument("--frames", type=int, default=16, help="pictures of each of these rooms")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    draw = torch.compile(render, dynamic=False) if arguments.compile else render
    how = "compiled" if arguments.compile else "eager"
    print(f"{date.today()}, commit {run_metadata.commit()}, torch {torch.__version__}, {how}")
    print(run_metadata.described(device))
    seeds = range(arguments.rooms)
    make_rooms(0, device)  # draws the textures
    times = seconds(lambda i: make_rooms([64 * (i + 3) + s for s in range(64)]), 20, device)
    report("drawing 64 rooms", 64, times)
    sizes = ((640, 480, 1, 1), (128, 96, 1, 1), (128, 96, len(seeds), arguments.frames))
    for width, height, batch, frames in sizes:
        rooms = make_rooms(seeds[:batch], device)
        paths = make_trajectory(seeds[:batch], rooms)
        f = 0.7 * width
        lens = torch.tensor([f, f, (width - 1) / 2, (height - 1) / 2], device=device)
        poses = [paths.pose(0.1 * (i * frames + torch.arange(frames))).to(device) for i in range(8)]
        call = partial(cycle, partial(draw, rooms), poses, (lens, height, width))
        times = seconds(call, arguments.repeats, device)
        report(f"{batch} x {frames} at {width}x{height}", batch * frames, times)


if __name__ == "__main__":
    main()
