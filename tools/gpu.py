# SPDX-License-Identifier: Apache-2.0
"""Everything worth doing on a GPU, in a few minutes: what `make gpu` runs.

    python tools/gpu.py                                    # 8 minutes, results in gpu_output/
    python tools/gpu.py --device cpu --minutes 0.5 ...     # a dry run

First the golden sets on the device; where an output is wrong nothing else is worth its time. Then
the benchmarks, each row printed and written as it comes. The rest of the time goes to training,
from the weights given: a self-check of ten steps, then a file of weights every 20 s, so that
whatever stops it loses little. At the end the settings are chosen and the file is written. All
files stay below 16 MiB. Beside torch this needs NumPy, OpenCV, Pillow, safetensors and tqdm alone.

**No part of this has run on a GPU yet**; a test runs each on the CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `tools`, `benchmarks`

import torch
from torch import Tensor

from benchmarks import bench_all
from benchmarks.timing import made_with
from tools.training.clips import FIRST_HELD_OUT_SEED, Windows, evaluation_windows
from tools.training.evaluate import run, score
from tools.training.export import export
from tools.training.settings import DEMO_NETWORK, TrainingSettings, settings_from_weights
from tools.training.trainer import Trainer
from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.network.checkpoint import load_network
from ttt3r_ros.network.config import NetworkConfig

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "ttt3r_ros" / "assets" / "demo.safetensors"
WEIGHTS = "weights.safetensors"  # in the output
GOLDEN = ROOT / "test" / "data" / "golden"
_PARITY_TOLERANCE = {"f32": 3e-4, "half": 1e-3}  # other sums than a CPU's; see check_parity.py
_OUTLIERS = 5e-4  # share of values that may be off by more
_SELF_CHECK_STEPS = 10
_SAVE_EVERY_S = 20.0
_EXPORT_S = 25.0  # kept for the end
_LEAST_TRAINING_S = 20.0
_FIRST_SEED = FIRST_HELD_OUT_SEED + 1000  # as `export_demo_model`
_INTERVALS = (0, 48, 24, 12)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done, on what, for how long."""

    device: str
    output: Path
    seconds: float
    bench_seconds: float
    weights: Path  # .safetensors, or the last.pt of a training
    frames_per_step: int
    golden: tuple[tuple[str, str, str], ...]  # set, run, variant
    export_rooms: int
    export_images: int
    config: NetworkConfig = DEMO_NETWORK
    clips_in_memory: int = 2000


def golden_runs() -> tuple[tuple[str, str, str], ...]:
    """Set, run and variant of everything that is recorded."""
    return tuple(
        (path.parent.name, name, variant)
        for path in sorted(GOLDEN.glob("*/set.json"))
        for name in json.loads(path.read_text(encoding="utf-8"))["runs"]
        for variant in _PARITY_TOLERANCE
    )


def parity(plan: Plan, say: Callable[[str], None]) -> bool:
    """Compare the network on the device with recorded outputs; False at the first that differs."""
    check = _check_parity()
    adapter = check.load_adapter(str(ROOT / "test" / "helpers" / "parity_adapter.py"))
    setattr(adapter, "DEVICE", plan.device)  # noqa: B010  a module that only exists here
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, str] = {}
        for name, run_name, variant in plan.golden:
            if name not in files:
                files[name] = str(Path(folder) / f"{name}.pth")
                check.recipe.write_checkpoint(str(GOLDEN / name / "set.json"), files[name])
            passed, rows = check.run_one(
                str(GOLDEN / name), run_name, variant, adapter, files[name],
                _PARITY_TOLERANCE[variant], _OUTLIERS, quiet=True,
            )  # fmt: skip
            wrong = [key for key, result in rows if result is None or not result["ok"]]
            say(f"parity {name} {run_name} {variant}: {'as recorded' if passed else wrong}")
            if not passed:
                return False
    return True


def bench(plan: Plan, say: Callable[[str], None]) -> None:
    """Run the benchmarks in a process of their own, so that the GPU's memory is free after it."""
    rows = plan.output / "bench.jsonl"
    words = ["--device", plan.device, "--minutes", f"{plan.bench_seconds / 60:g}"]
    program = [sys.executable, bench_all.__file__, *words, "--output", str(rows)]
    done = subprocess.run(program, check=False, env=bench_all.environment())
    say(f"benchmarks: exit status {done.returncode}, rows in {rows.name}")


def weights_of(path: Path) -> dict[str, Tensor]:
    """Parameters from a file of weights, or the averaged ones from a training's checkpoint."""
    if path.suffix == ".pt":
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        average: dict[str, Tensor] = content["average"]
        return average
    return load_network(path).state_dict()


class QuickTrainer(Trainer):
    """A trainer whose checkpoints are the files of weights themselves, which are small."""

    def __init__(self, plan: Plan, settings: TrainingSettings) -> None:
        super().__init__(
            plan.config, settings, plan.output, plan.device, weights=weights_of(plan.weights)
        )
        self.target = plan.output / WEIGHTS

    def save(self) -> None:
        """Write the averaged weights; whatever stops the program, the last file is whole."""
        part = self.target.with_suffix(".part.safetensors")
        export(self.average, part, {}, f"in training: {self.images} images shown")
        part.replace(self.target)


def train(plan: Plan, seconds: float, say: Callable[[str], None]) -> QuickTrainer | None:
    """Train for so long; None where the self-check fails."""
    settings = replace(
        settings_from_weights(seconds / 60),
        frames_per_step=plan.frames_per_step,
        clips_in_memory=plan.clips_in_memory,
        save_every_s=_SAVE_EVERY_S,
        helper_steps=30,
    )
    trainer = QuickTrainer(plan, settings)
    began_s = time.monotonic()
    first = trainer.step()  # renders the first clips
    rendered_s = time.monotonic() - began_s
    began_s, shown = time.monotonic(), trainer.images
    losses = first
    for _ in range(_SELF_CHECK_STEPS - 1):
        losses = trainer.step()
    rate = (trainer.images - shown) / (time.monotonic() - began_s)
    say(
        f"training: {rate:.0f} images/s in {_SELF_CHECK_STEPS} steps of {plan.frames_per_step}, "
        f"loss {first['total']:.3f} at first, {losses['total']:.3f} now; "
        f"{rendered_s:.1f} s for the first step"
    )
    if not all(math.isfinite(loss) for loss in losses.values()):
        say("training: the loss is not finite, left")
        return None
    trainer.seconds = time.monotonic() - began_s + rendered_s
    trainer.train()
    say(f"training: {trainer.images} images in {trainer.steps} steps")
    return trainer


def write(plan: Plan, trainer: QuickTrainer, say: Callable[[str], None]) -> None:
    """Choose the reset interval for `ttt3r` and write the file."""
    seeds = list(range(_FIRST_SEED, _FIRST_SEED + plan.export_rooms))
    windows: Windows = evaluation_windows(seeds, plan.export_images, device=plan.device)
    network = trainer.average
    results = {n: score(run(network, windows.image, n), windows) for n in _INTERVALS}
    for interval, result in results.items():
        say(f"reset every {interval or 'never'}: AbsRel {result.abs_rel:.3f}, "
            f"ATE {result.ratio_all:.3f} of a resting camera's")  # fmt: skip
    best = min(results, key=lambda n: results[n].ate_all)
    hardware = run_metadata.described(torch.device(plan.device))
    about = f"{trainer.images} images of rendered rooms shown on {hardware}, torch"
    export(
        network,
        trainer.target,
        {"segment.reset_interval": best},
        f"tools/gpu.py from {plan.weights.name}: {about} {torch.__version__}",
    )
    say(f"written: {trainer.target.name}, {trainer.target.stat().st_size / 2**20:.1f} MiB")


def everything(plan: Plan) -> int:
    """Do all of the plan; return the exit status."""
    began_s = time.monotonic()
    plan.output.mkdir(parents=True, exist_ok=True)
    log = plan.output / "log.txt"
    log.unlink(missing_ok=True)

    def say(line: str) -> None:
        text = f"{time.monotonic() - began_s:6.1f} s  {line}"
        print(text, flush=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    say(made_with(torch.device(plan.device)))
    if not parity(plan, say):
        return 1
    if plan.bench_seconds > 0:
        bench(plan, say)
    left_s = plan.seconds - (time.monotonic() - began_s) - _EXPORT_S
    if left_s < _LEAST_TRAINING_S:
        say(f"training: {left_s:.0f} s are too few")
        return 0
    trainer = train(plan, left_s, say)
    if trainer is None:
        return 1
    write(plan, trainer, say)
    return 0


def _check_parity() -> ModuleType:
    """The program that lies beside the golden sets, as a module."""
    spec = importlib.util.spec_from_file_location("check_parity", GOLDEN / "check_parity.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line and do everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    add = parser.add_argument
    add("--device", default="cuda")
    add("--output", type=Path, default=Path("gpu_output"), help="directory for all results")
    add("--minutes", type=float, default=8.0, help="for everything")
    add("--bench-minutes", type=float, default=3.0, help="of these, for benchmarks; 0: none")
    add("--from", type=Path, default=SHIPPED, dest="weights", metavar="WEIGHTS",
        help="to train on from: .safetensors, or a training's last.pt")  # fmt: skip
    add("--frames-per-step", type=int, default=1536, help="images of a training step")
    arguments = parser.parse_args(words)
    return everything(
        Plan(
            device=arguments.device,
            output=arguments.output,
            seconds=60 * arguments.minutes,
            bench_seconds=60 * arguments.bench_minutes,
            weights=arguments.weights,
            frames_per_step=arguments.frames_per_step,
            golden=golden_runs(),
            export_rooms=8,
            export_images=64,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
