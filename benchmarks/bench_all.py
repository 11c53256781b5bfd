# SPDX-License-Identifier: Apache-2.0
"""The benchmarks that say how fast it is, one after the other, and one table of their results.

    python benchmarks/bench_all.py                                    # make bench: 3 minutes
    python benchmarks/bench_all.py --device cuda --minutes 3 --output rows.jsonl

Each row is printed, and written to the output, as soon as it is measured. When the minutes are over
what runs is ended, and what was not begun is named. Nothing is installed: beside torch there have
to be NumPy, OpenCV, Pillow, safetensors and tqdm, as most machines with torch have. Without ROS the
node is left out. What cannot run here has a row that says why, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package
if not importlib.util.find_spec("transforms3d"):  # which the package needs
    sys.path.insert(0, str(Path(__file__).resolve().parent / "stand_ins"))

import torch

from benchmarks.timing import in_gigabytes, made_with

HERE = Path(__file__).resolve().parent
STAND_INS = HERE / "stand_ins"

Findings = Iterator[tuple[str, str]]  # what, and how much of it


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A program of this folder, and what of each of its rows goes into the table."""

    words: tuple[str, ...]  # the command line after the interpreter, but --json
    findings: Callable[[Any], Findings]

    @property
    def command(self) -> str:
        """As one would type it."""
        return " ".join(self.words)


def of_step(table: Any) -> Findings:
    """Steps of a network of one size and dtype."""
    for name, row in table["rows"].items():
        if name.partition(",")[0] == "step":
            what = f"{name}, {table['size']}, {table['dtype']}, random weights"
            rate = row["gflop"] / row["median_ms"]
            times = f"{row['median_ms']:.1f} ms, p95 {row['p95_ms']:.1f}"
            yield what, f"{times}, {row['gflop']:.1f} GFLOP, {rate:.2f} TFLOP/s"


def of_baseline(result: Any) -> Findings:
    """Our step beside the arithmetic as published."""
    what = f"step as published by ours, {result['size']}, {result['dtype']}"
    yield what, f"{result['ratio']['wall_median_s']:.2f} times the time"
    held = in_gigabytes(result["rows"]["ours"]["memory_bytes"])
    yield f"memory of our steps, {result['size']}, {result['dtype']}", f"{held} GB"


def of_pipeline(row: Any) -> Findings:
    """Whole images through the pipeline."""
    what = f"pipeline, {row['network']} network, {row['network_image']}, {row['dtype']}"
    beside = row["median_ms"] - row["parts_ms"]["network"]
    yield what, f"{row['images_per_s']:.1f} images/s, {beside:.1f} ms beside the network"


def of_map(row: Any) -> Findings:
    """An image into the map."""
    ours, *peers = row["times"].items()
    what = f"map, {row['scene']}, stride {row['stride']}, {row['voxels'] / 1e6:g} M voxels"
    yield what, f"{ours[1]['median_ms']:.1f} ms, p95 {ours[1]['p95_ms']:.1f}"
    for peer, times in peers:
        if times:
            yield (
                f"{what}, time of {peer} by ours",
                (f"{times['median_ms'] / ours[1]['median_ms']:.1f}"),
            )


def of_node(result: Any) -> Findings:
    """Stamp to TF."""
    parts, load_ms = result["parts_ms"], result["load_ms"]
    name = f"node with a load of {load_ms:g} ms" if load_ms else "node"
    total, rest = parts["stamp to TF"], parts["all but waiting and step"]
    yield f"{name}, poses on /tf", f"{result['tf_hz']:.1f} /s of {result['rate']:g} images/s"
    for what, row in (("stamp to TF", total), ("of it all but waiting and step", rest)):
        yield f"{name}, {what}", f"{row['p50']:.1f} ms, p95 {row['p95']:.1f}, p99 {row['p99']:.1f}"
    slowest = max(row["max"] for row in result["requests_ms"].values())
    yield f"{name}, slowest answer to a request", f"{slowest:.1f} ms"
    yield f"{name}, processor time", f"{result['cpu']:.0%} of a core"


def of_long_run(row: Any) -> Findings:
    """Memory and time of many images."""
    what = f"{row['images']} images in a row"
    yield what, f"step {row['step_ms']:.1f} ms, {row['host_mib']:.0f} MiB"


def benchmarks(device: str) -> list[Benchmark]:
    """What is run on a device, in order: what says most comes first."""
    on = ("--device", device)
    node = ("bench_node.py", "--seconds", "15", "--requests", "5", *on)
    in_node = [Benchmark(node, of_node), Benchmark((*node, "--load-ms", "45"), of_node)]
    if not importlib.util.find_spec("rclpy"):
        print("no ROS here: the node is left out", file=sys.stderr)
        in_node = []
    alone = device != "cpu" or not all(map(importlib.util.find_spec, ("open3d", "kiss_icp")))
    in_map = ("bench_map.py", "--quick", *(("--without-peers",) if alone else ()), *on)
    rest = [
        Benchmark(in_map, of_map),
        Benchmark(("bench_long_run.py", "--images", "1000", *on), of_long_run),
    ]
    if device == "cpu":
        return [
            Benchmark(("bench_step.py", "--size", "224x224", "--images", "3", *on), of_step),
            Benchmark(("bench_pipeline.py", *on), of_pipeline),
            *in_node,
            *rest,
        ]
    return [*on_gpu(on), *rest, *in_node]


def on_gpu(
    on: Sequence[str],
    sizes: tuple[str, str] = ("512x384", "224x224"),
    acceleration: str = "graphs",
    images: int = 20,
    dtypes: Sequence[str] = ("tf32", "bfloat16", "float32", "float16"),
) -> list[Benchmark]:
    """The networks on a GPU, of the larger and the smaller size, in the dtypes, best first."""
    few = ("--images", str(images), *on)
    large, small = sizes
    best, others = dtypes[: len(dtypes) // 2], dtypes[len(dtypes) // 2 :]

    def step(size: str) -> Benchmark:
        how = ("--dtype", *dtypes, "--acceleration", acceleration)
        return Benchmark(("bench_step.py", "--size", size, *how, *few), of_step)

    def pipeline(networks: Sequence[str], some: Sequence[str]) -> Benchmark:
        words = ("bench_pipeline.py", "--network", *networks, "--dtype", *some, *few)
        return Benchmark(words, of_pipeline)

    def baseline(dtype: str) -> Benchmark:
        words = ("bench_baseline.py", "--size", large, "--dtype", dtype, *few)
        return Benchmark(words, of_baseline)

    return [
        step(large),
        pipeline(("shipped", large), best),
        *map(baseline, best),
        step(small),
        pipeline((small,), dtypes),
        pipeline((large,), others),
    ]


def rehearsal() -> list[Benchmark]:
    """What runs on a GPU, on the CPU with tiny networks: whether it runs at all."""
    on = ("--device", "cpu", "--threads", "1")
    in_map = ("bench_map.py", "--plan", "tiny", "--without-peers", *on)
    long_run = ("bench_long_run.py", "--images", "4", "--block", "4", *on)
    return [
        *on_gpu(on, ("tiny-dpt", "tiny-linear"), "none", 1, ("bfloat16", "float32")),
        Benchmark(in_map, of_map),
        Benchmark(long_run, of_long_run),
    ]


def environment() -> dict[str, str]:
    """That of this process, with stand-ins for a library that is missing."""
    if importlib.util.find_spec("transforms3d"):
        return dict(os.environ)
    path = [str(STAND_INS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def rows_of(benchmark: Benchmark, limit_s: float) -> Iterator[Any]:
    """Run one and yield its rows as they come.

    Raises:
        TimeoutError: it was not done in time, and was ended.
        RuntimeError: it failed; the message is the last that it said.
    """
    program, *words = benchmark.words
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, str(HERE / program), *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment(),
            start_new_session=True,  # with what it starts
        )
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit_s, end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):  # else a library speaks
                    yield json.loads(line)
            status = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                end()
                process.wait()
        if is_late.is_set():
            raise TimeoutError("the time is over")
        if status:
            said.seek(0)
            lines = said.read().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"exit status {status}")


def run_all(found: Sequence[Benchmark], minutes: float, output: TextIO | None) -> int:
    """Run them; print and write each row as it comes; return the exit status."""
    ends_s, status = time.monotonic() + 60 * minutes, 0

    def tell(command: str, found: Sequence[tuple[str, str]], row: Any = None) -> None:
        for what, how_much in found:
            print(f"| {what} | {how_much} | `{command}` |", flush=True)
        if output:
            content = {"command": command, "found": dict(found), "row": row}
            print(json.dumps(content), file=output, flush=True)

    print("| | | by `benchmarks/...` |\n|---|---|---|", flush=True)
    for benchmark in found:
        print(f"{benchmark.command} ...", file=sys.stderr, flush=True)
        left_s = ends_s - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError("the time was over before it began")
            for row in rows_of(benchmark, left_s):
                tell(benchmark.command, [*benchmark.findings(row)], row)
        except TimeoutError as late:
            tell(benchmark.command, [("not done", str(late))])
        except RuntimeError as error:
            tell(benchmark.command, [("not run", str(error))])
            status = 1
    return status


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line, run all; return the exit status."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and print one table.")
    add = parser.add_argument
    add("--device", default="cpu", help="cpu or cuda")
    add("--minutes", type=float, default=20.0, help="for all of them; default: %(default)g")
    add("--output", type=Path, metavar="FILE", help="write rows here as lines of JSON")
    add("--rehearse", action="store_true", help="only see whether those for a GPU run")
    arguments = parser.parse_args(words)
    found = rehearsal() if arguments.rehearse else benchmarks(arguments.device)
    with ExitStack() as stack:
        output = arguments.output and stack.enter_context(
            arguments.output.open("w", encoding="utf-8")
        )
        status = run_all(found, arguments.minutes, output)
        made = made_with(torch.device(arguments.device))
        print(f"\n{made}")
        if output:
            print(json.dumps({"made_with": made}), file=output)
    return status


if __name__ == "__main__":
    sys.exit(main())
