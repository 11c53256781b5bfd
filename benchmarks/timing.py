# SPDX-License-Identifier: Apache-2.0
"""What the `bench_*` programs share: clocks, memory, operations, and how results are shown.

With `--json` a program prints each row as a JSON object in a line of its own as soon as it is
measured, which `bench_all.py` waits for; otherwise a table at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.network.state import RecurrentState

Row = dict[str, Any]


def parser(about: str | None) -> argparse.ArgumentParser:
    """The options that all of them have."""
    result = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, default=torch.get_num_threads(), help="of torch on the CPU")
    add("--json", action="store_true", help="print rows as JSON, as they come")
    return result


def show(
    rows: Iterable[Row],
    markdown: Callable[[list[Row]], list[str]],
    device: torch.device | str,
    as_json: bool,
) -> None:
    """Print rows as JSON as they come, or tables when all are there."""
    if as_json:
        for row in rows:
            print(json.dumps(row), flush=True)
    else:
        print("\n".join([*markdown(list(rows)), "", made_with(torch.device(device))]))


def made_with(device: torch.device) -> str:
    """Hardware, versions, date and commit, in a line."""
    return (
        f"{run_metadata.described(device)}, load average {os.getloadavg()[0]:.1f}, torch "
        f"{torch.__version__}, {date.today().isoformat()}, commit {run_metadata.commit()}."
    )


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spent(call: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall and CPU seconds of one call, with nothing else in the device's queue."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def in_turns(
    calls: Mapping[str, Callable[[], object]], images: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Return wall and CPU seconds of so many rounds of calls, every second one backwards.

    All have been called once; a GPU warms up with five more rounds.
    """
    warm_up = 5 if device.type == "cuda" else 0
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for index in range(warm_up + images):
        for name in list(calls)[:: -1 if index % 2 else 1]:
            elapsed = spent(calls[name], device)
            if index >= warm_up:
                times[name].append(elapsed)
    return times


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


def state_bytes(state: RecurrentState) -> int:
    """What a stream keeps from image to image."""
    return sum(tensor.nbytes for tensor in state.to_tensors().values())
