# SPDX-License-Identifier: Apache-2.0
"""The benchmarks that say how fast it is, one after the other, and one table of their results.

    python benchmarks/bench_all.py                  # make bench: on the CPU, 3 minutes
    python benchmarks/bench_all.py --device cuda    # make bench-gpu

Nothing is installed: beside torch there have to be NumPy, OpenCV, Pillow, safetensors and tqdm, as
most machines with torch have. Without ROS the node is left out. What cannot run here has a row that
says why, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

import torch

from ttt3r_ros.evaluation import circumstances

HERE = Path(__file__).resolve().parent
STAND_INS = HERE / "stand_ins"
_LIMIT_S = 240.0  # for one benchmark

Findings = Iterator[tuple[str, str]]  # what, and how much of it


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A program of this folder, and what of its result goes into the table."""

    words: tuple[str, ...]  # the command line after the interpreter
    findings: Callable[[Any], Findings]
    json: bool = True  # it prints JSON, with --json; else it writes rows with --csv

    @property
    def command(self) -> str:
        """As one would type it."""
        return " ".join(self.words)


def of_step(result: Any) -> Findings:
    """One step of a network."""
    for table in result["tables"]:
        for name, row in table["rows"].items():
            if name.partition(",")[0] == "step":
                what = f"{name}, {table['size']}, {table['dtype']}, random weights"
                yield what, f"{row['median_ms']:.1f} ms, p95 {row['p95_ms']:.1f}"


def of_baseline(result: Any) -> Findings:
    """Our step beside the arithmetic as published."""
    what = f"step as published by ours, {result['size']}, {result['dtype']}"
    yield what, f"{result['ratio']['wall_median_s']:.2f} times the time"
    memory = result["rows"]["ours"]["memory_bytes"]
    held = ", ".join(f"{count / 1e9:.2f} GB {kind}" for kind, count in memory.items())
    yield f"memory of our steps, {result['size']}, {result['dtype']}", held


def of_pipeline(result: Any) -> Findings:
    """Whole images through the pipeline."""
    for row in result["rows"]:
        what = f"pipeline, {row['network']} network, {row['network_image']}, {row['dtype']}"
        beside = row["median_ms"] - row["parts_ms"]["network"]
        yield what, f"{row['images_per_s']:.1f} images/s, {beside:.1f} ms beside the network"


def of_map(result: Any) -> Findings:
    """An image into the map."""
    for row in result["rows"]:
        times = next(iter(row["times"].values()))
        what = f"map, {row['scene']}, stride {row['stride']}, {row['voxels'] / 1e6:g} M voxels"
        yield what, f"{times['median_ms']:.1f} ms, p95 {times['p95_ms']:.1f}"
    for peer, ratio in result["speedup_vs"].items():
        if ratio is not None:
            yield f"map, time of {peer} by ours", f"{ratio:.1f}"


def of_node(result: Any) -> Findings:
    """Stamp to TF."""
    parts, load_ms = result["parts_ms"], result["load_ms"]
    name = f"node with a load of {load_ms:g} ms" if load_ms else "node"
    total, rest = parts["stamp to TF"], parts["all but waiting and step"]
    yield f"{name}, poses on /tf", f"{result['tf_hz']:.1f} /s of {result['rate_hz']:g} images/s"
    for what, row in (("stamp to TF", total), ("of it all but waiting and step", rest)):
        yield f"{name}, {what}", f"{row['p50']:.1f} ms, p95 {row['p95']:.1f}, p99 {row['p99']:.1f}"
    slowest = max(row["max"] for row in result["requests_ms"].values())
    yield f"{name}, slowest answer to a request", f"{slowest:.1f} ms"
    yield f"{name}, processor time", f"{result['cpu']:.0%} of a core"


def of_long_run(rows: Any) -> Findings:
    """Memory and time of many images."""
    last = rows[-1]
    what = f"{last['images']} images in a row"
    yield what, f"step {float(last['step_ms']):.1f} ms, {float(last['host_mib']):.0f} MiB"


def benchmarks(device: str) -> list[Benchmark]:
    """What is run on a device, in order."""
    on = ("--device", device)
    alone = device != "cpu" or not all(map(importlib.util.find_spec, ("open3d", "kiss_icp")))
    in_map = Benchmark(
        ("bench_map.py", "--quick", *(("--without-peers",) if alone else ()), *on), of_map
    )
    node = ("bench_node.py", "--seconds", "15", "--requests", "5", *on)
    in_node = [Benchmark(node, of_node), Benchmark((*node, "--load-ms", "45"), of_node)]
    if not importlib.util.find_spec("rclpy"):
        print("no ROS here: the node is left out", file=sys.stderr)
        in_node = []
    long_run = Benchmark(("bench_long_run.py", "--images", "1000", *on), of_long_run, json=False)
    if device == "cpu":
        return [
            Benchmark(("bench_step.py", "--size", "224x224", "--images", "3", *on), of_step),
            Benchmark(("bench_pipeline.py", *on), of_pipeline),
            *in_node,
            in_map,
            long_run,
        ]
    sizes, dtypes = ("512x384", "224x224"), ("--dtype", "float32", "tf32", "bfloat16", "float16")
    steps = ("bench_step.py", "--size", *sizes, *dtypes, "--acceleration", "graphs")
    baseline = ("bench_baseline.py", "--size", "512x384", "--images", "20", "--dtype")
    return [
        Benchmark((*steps, "--images", "50", *on), of_step),
        *(Benchmark((*baseline, dtype, *on), of_baseline) for dtype in ("tf32", "bfloat16")),
        Benchmark(("bench_pipeline.py", "--network", "shipped", *sizes, *dtypes, *on), of_pipeline),
        in_map,
        long_run,
        *in_node,
    ]


def environment() -> dict[str, str]:
    """That of this process, with stand-ins for a library that is missing."""
    if importlib.util.find_spec("transforms3d"):
        return dict(os.environ)
    path = [str(STAND_INS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def run(benchmark: Benchmark, limit_s: float = math.inf) -> tuple[list[tuple[str, str]], str]:
    """Run one; return its rows, and what kept it from ending well."""
    limit_s = min(limit_s, _LIMIT_S)
    if limit_s <= 0:
        return [], "no time was left"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        how = ["--json"] if benchmark.json else ["--csv", str(table)]
        program, *words = benchmark.words
        try:
            done = subprocess.run(
                [sys.executable, str(HERE / program), *words, *how],
                capture_output=True,
                text=True,
                timeout=limit_s,
                env=environment(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [], f"not done after {limit_s:.0f} s"
        if done.returncode:
            said = done.stderr.strip().splitlines()
            return [], said[-1] if said else f"exit status {done.returncode}"
        if benchmark.json:
            result = json.loads(done.stdout)
        else:
            with table.open(encoding="utf-8", newline="") as file:
                result = list(csv.DictReader(file))
    return list(benchmark.findings(result)), ""


def made_with(device: str) -> str:
    """Hardware and versions in words."""
    hardware = circumstances.described(torch.device(device))
    return f"{hardware}, torch {torch.__version__}, {date.today()}, commit {circumstances.commit()}"


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line, run all, print; return the exit status."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and print one table.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--minutes", type=float, default=math.inf, help="for all together")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the table, as it grows")
    arguments = parser.parse_args(words)
    end_s, status = time.monotonic() + 60 * arguments.minutes, 0
    if arguments.write:
        arguments.write.unlink(missing_ok=True)

    def show(line: str) -> None:
        print(line, flush=True)
        if arguments.write:
            with arguments.write.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    show("| | | by `benchmarks/...` |\n|---|---|---|")
    for benchmark in benchmarks(arguments.device):
        print(f"{benchmark.command} ...", file=sys.stderr, flush=True)
        rows, problem = run(benchmark, end_s - time.monotonic())
        for what, how_much in rows:
            show(f"| {what} | {how_much} | `{benchmark.command}` |")
        if problem:
            show(f"| not run | {problem} | `{benchmark.command}` |")
            status = 1
    show(f"\n{made_with(arguments.device)}.")
    return status


if __name__ == "__main__":
    sys.exit(main())
