# SPDX-License-Identifier: Apache-2.0
"""How good the demo model is on rooms it has not seen, under both update rules and several resets.

    python benchmarks/evaluate_demo_model.py --json results.json

Every room is filmed once, as long as the longest of the lengths; shorter ones are its beginnings.
The network is stepped for several rooms at once, which changes nothing but the speed: segments are
chained as `ttt3r_ros.tracker` does, and a test compares the two. Batches of rooms are shared among
processes. Rooms, images and weights are fixed, so the numbers can be had again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import circumstances
from ttt3r_ros.evaluation.trajectory_metrics import trajectory_errors
from ttt3r_ros.model import Model, load_model
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import find_update_rule
from ttt3r_ros.simulation import make_rooms, make_trajectory, render

FIRST_SEED = 1_000_000  # training and the choice of settings use smaller ones
LENGTHS = (8, 16, 32, 64, 150, 300, 600)
RULES = ("cut3r", "ttt3r")
RATE_HZ = 10.0
METRICS = ("ate_m", "ate_by_guess", "rpe_trans_m", "rpe_rot_deg", "abs_rel", "delta_1_25")
_HEADS = ("ATE [m]", "ATE / constant", "RPE trans [m]", "RPE rot [deg]", "AbsRel", "δ < 1.25")
_DECIMALS = (3, 3, 4, 3, 3, 3)
_FOCAL_SHARE = 0.75  # of the width
_RENDERED_AT_ONCE = 4  # images of each room
_DEPTH_STRIDE = 4  # of the rows and columns in which the constant guess of depth is found
_LEAST_M = 1e-3
_BINS = 10

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated."""

    config: Config  # names the weights and the device
    lengths: tuple[int, ...]
    intervals: tuple[int, ...]  # images in a segment; 0: never reset
    gain_interval: int  # the interval whose gains are counted
    supersampling: int


@dataclass(frozen=True, slots=True)
class RoomResult:
    """The errors in one room, by length, each with the METRICS but `ate_by_guess`."""

    guess: dict[int, dict[str, float]]
    errors: dict[tuple[str, int, int], dict[str, float]]  # by rule, interval, length
    gains: Numbers  # [_BINS] how many gains of TTT3R fell into each tenth of 0 to 1


class BatchTracker:
    """The tracker's segments for B streams that step together."""

    def __init__(self, network: Network, rule: str, reset_interval: int, batch: int) -> None:
        """Begin in front of the first images."""
        self._network, self._rule = network, find_update_rule(rule)
        self._interval, self._batch = reset_interval, batch
        self._T_first_segment = torch.eye(4, dtype=torch.float64).expand(batch, 4, 4)
        self._begin()

    def _begin(self) -> None:
        self._network.update_rule = self._rule
        self._state = self._network.initial_state(self._batch)
        self._images = 0  # of the segment

    def step(self, features: Tensor) -> tuple[Tensor, Prediction]:
        """Take the features of one image per stream.

        Returns:
            The cameras in the frame of their streams' first ones, float64 [B, 4, 4], and what the
            network said.
        """
        self._network.update_rule = self._rule
        self._state, prediction = self._network.advance(self._state, features)
        T_first_camera = self._T_first_segment @ _orthonormal(prediction.pose_matrix.double().cpu())
        self._images += 1
        if self._images == self._interval:
            self._begin()
            self._state, again = self._network.advance(self._state, features)
            T_segment_camera = _orthonormal(again.pose_matrix.double().cpu())
            self._T_first_segment = T_first_camera @ torch.linalg.inv(T_segment_camera)
        return T_first_camera, prediction


def _orthonormal(T: Tensor) -> Tensor:
    """The nearest rigid transforms, as `geometry.orthonormal`."""
    u, _, vt = torch.linalg.svd(T[:, :3, :3])
    sign = torch.ones_like(u[:, 0])
    sign[:, 2] = torch.linalg.det(u @ vt)
    result = T.clone()
    result[:, :3, :3] = u @ torch.diag_embed(sign) @ vt
    return result


def film(
    seeds: Sequence[int], images: int, width: int, height: int, supersampling: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield image after image of some rooms.

    Yields:
        Colours, uint8 [B, H, W, 3]; depth in metres [B, H, W]; T_world_camera, float64 [B, 4, 4].
    """
    rooms = make_rooms(list(seeds))
    path = make_trajectory(list(seeds), rooms)
    focal = _FOCAL_SHARE * width
    lens = (focal, focal, (width - 1) / 2, (height - 1) / 2)
    for start in range(0, images, _RENDERED_AT_ONCE):
        stop = min(images, start + _RENDERED_AT_ONCE)
        poses = path.pose(torch.arange(start, stop, dtype=torch.float64) / RATE_HZ)
        rgb, depth = render(rooms, poses, lens, height, width, supersampling=supersampling)
        for i in range(stop - start):
            yield (255 * rgb[:, i]).round().byte(), depth[:, i], poses[:, i].double()


@torch.inference_mode()
def evaluate_rooms(plan: Plan, seeds: Sequence[int], model: Model) -> list[RoomResult]:
    """Film rooms, follow the camera in all ways of the plan, and compare with the truth."""
    network, batch, images = model.network, len(seeds), max(plan.lengths)
    width, height = model.image_size, 3 * model.image_size // 4
    trackers = {
        (rule, interval): BatchTracker(network, rule, interval, batch)
        for rule in RULES
        for interval in plan.intervals
    }
    poses: dict[tuple[str, int], list[Tensor]] = {key: [] for key in trackers}
    depth_errors: dict[tuple[str, int], list[Tensor]] = {key: [] for key in trackers}
    true_poses, true_depths = [], []
    gains = torch.zeros(batch, _BINS)
    for rgb, true_m, T_world_camera in film(seeds, images, width, height, plan.supersampling):
        pixels = rgb.permute(0, 3, 1, 2).to(model.device).float()
        features = network.encode(pixels.div_(255).sub_(0.5).div_(0.5))
        true_poses.append(T_world_camera)
        true_depths.append(true_m[:, ::_DEPTH_STRIDE, ::_DEPTH_STRIDE])
        for key, tracker in trackers.items():
            T_first_camera, prediction = tracker.step(features)
            poses[key].append(T_first_camera)
            depth_errors[key].append(_depth_errors(prediction.points[..., 2].cpu(), true_m))
            # A new state takes all of its first image; later segments begin with a shared one.
            if key == ("ttt3r", plan.gain_interval) and len(true_poses) > 1:
                gains += torch.stack([g.cpu().histc(_BINS, 0, 1) for g in prediction.gain])
    truth = torch.stack(true_poses, dim=1).numpy()
    depth = torch.stack(true_depths, dim=1)
    answers = {
        key: (torch.stack(poses[key], dim=1).numpy(), torch.stack(depth_errors[key], dim=1).numpy())
        for key in trackers
    }
    results = []
    for room in range(batch):
        errors = {
            (*key, length): _errors(found[room], wrong[room], truth[room], length)
            for key, (found, wrong) in answers.items()
            for length in plan.lengths
        }
        guess = {length: _guess(truth[room], depth[room], length) for length in plan.lengths}
        results.append(RoomResult(guess, errors, gains[room].double().numpy()))
    return results


def _depth_errors(depth_m: Tensor, true_m: Tensor) -> Tensor:
    """AbsRel and the share below 1.25 of each image: [B, 2] of two [B, H, W]."""
    relative = ((depth_m - true_m).abs() / true_m).mean(dim=(1, 2))
    quotient = depth_m.clamp(min=_LEAST_M) / true_m
    near = (torch.maximum(quotient, 1 / quotient) < 1.25).float().mean(dim=(1, 2))
    return torch.stack((relative, near), dim=1)


def _errors(found: Numbers, depth: Numbers, truth: Numbers, length: int) -> dict[str, float]:
    """Errors over the first images: poses [T, 4, 4] and depth errors [T, 2] of one room."""
    path = trajectory_errors(found[:length], truth[:length])
    abs_rel, delta = depth[:length].mean(axis=0).tolist()
    return {
        "ate_m": _number(path.ate_rmse_m),
        "rpe_trans_m": _number(path.rpe_trans_m),
        "rpe_rot_deg": _number(path.rpe_rot_deg),
        "abs_rel": abs_rel,
        "delta_1_25": delta,
    }


def _guess(truth: Numbers, depth_m: Tensor, length: int) -> dict[str, float]:
    """Errors of a camera that never moves and sees one depth, the best that is known afterwards."""
    still = np.broadcast_to(truth[:1], truth[:length].shape)
    path = trajectory_errors(still, truth[:length])
    seen = depth_m[:length]
    abs_rel, delta = _depth_errors(seen.median().expand_as(seen), seen).mean(dim=0).tolist()
    return {
        "ate_m": path.guess_ate_rmse_m,
        "rpe_trans_m": _number(path.rpe_trans_m),
        "rpe_rot_deg": _number(path.rpe_rot_deg),
        "abs_rel": abs_rel,
        "delta_1_25": delta,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over rooms."""
    numbers = np.array(values, np.float64)
    spread = numbers.std(ddof=1) if len(numbers) > 1 else math.nan
    return float(numbers.mean()), float(spread / math.sqrt(len(numbers)))


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Ratio of two means and its standard error over rooms, to first order.

    The mean of ratios would be that of the rooms where the camera hardly moves.
    """
    quotient = float(np.mean(above) / np.mean(below))
    residuals = [a - quotient * b for a, b in zip(above, below, strict=True)]
    return quotient, mean(residuals)[1] / float(np.mean(below))


def summarize(results: Sequence[RoomResult], plan: Plan) -> dict[str, Any]:
    """Means with standard errors over rooms: rows for each rule, interval and length."""
    rows, differences = [], []
    for length in plan.lengths:
        guess = {m: [r.guess[length][m] for r in results] for m in METRICS if m != "ate_by_guess"}
        first = {m: mean(values) for m, values in guess.items()}
        first["ate_by_guess"] = (1.0, 0.0)
        rows.append({"rule": "constant", "interval": None, "images": length, **first})
        for interval in plan.intervals:
            found = {
                rule: {m: [r.errors[rule, interval, length][m] for r in results] for m in guess}
                for rule in RULES
            }
            for rule in RULES:
                numbers = {m: mean(values) for m, values in found[rule].items()}
                numbers["ate_by_guess"] = ratio(found[rule]["ate_m"], guess["ate_m"])
                rows.append({"rule": rule, "interval": interval, "images": length, **numbers})
            paired = {
                m: [t - c for t, c in zip(found["ttt3r"][m], found["cut3r"][m], strict=True)]
                for m in guess
            }
            numbers = {m: mean(values) for m, values in paired.items()}
            numbers["ate_by_guess"] = ratio(paired["ate_m"], guess["ate_m"])
            differences.append({"interval": interval, "images": length, **numbers})
    gains = np.sum([result.gains for result in results], axis=0)
    return {
        "rows": rows,
        "ttt3r_minus_cut3r": differences,
        "gain_histogram": (gains / max(1.0, gains.sum())).tolist(),
    }


def markdown(summary: dict[str, Any], about: dict[str, Any]) -> str:
    """The summary as tables, with its circumstances below."""
    head = "| images | rule | " + " | ".join(_HEADS) + " |"
    lines = []
    for interval in about["intervals"]:
        lines += [f"**{_reset(interval)}**", "", head, "|---" * (2 + len(_HEADS)) + "|"]
        for row in summary["rows"]:
            if row["interval"] in (None, interval):
                lines.append(f"| {row['images']} | {row['rule']} | {_cells(row)} |")
        lines.append("")
    lines += [
        "**ttt3r - cut3r, room by room**",
        "",
        "| images | reset | " + " | ".join(_HEADS) + " |",
        "|---" * (2 + len(_HEADS)) + "|",
    ]
    for row in summary["ttt3r_minus_cut3r"]:
        lines.append(f"| {row['images']} | {_reset(row['interval'])} | {_cells(row)} |")
    shares = summary["gain_histogram"]
    lines += [
        "",
        f"**Gain of ttt3r, {_reset(about['gain_interval'])}, the first image left out**",
        "",
        "| " + " | ".join(f"{i / _BINS:.1f}-{(i + 1) / _BINS:.1f}" for i in range(_BINS)) + " |",
        "|---" * _BINS + "|",
        "| " + " | ".join(f"{share:.1%}" for share in shares) + " |",
        "",
        f"Means over {about['rooms']} rooms ± their standard errors; seeds from {FIRST_SEED}, "
        f"{about['size']} at {RATE_HZ:g} Hz, nothing scaled. ATE after SE(3). "
        "The constant is a camera that never moves and sees one depth, the truth's median. "
        f"Weights {about['checkpoint']['name']} (SHA-256 {about['checkpoint']['sha256']}). "
        f"{about['hardware']['gpu'] or about['hardware']['cpu']}, processes: {about['processes']}, "
        f"{about['seconds']:.0f} s, torch {about['versions']['torch']}, "
        f"evo {about['versions']['evo']}, {about['date']}, commit {about['commit']}.",
    ]
    return "\n".join(lines)


def _reset(interval: int) -> str:
    return f"reset every {interval} images" if interval else "no resets"


def _cells(row: dict[str, Any]) -> str:
    cells = []
    for metric, decimals in zip(METRICS, _DECIMALS, strict=True):
        value, error = row[metric]
        cells.append(f"{value:.{decimals}f} ± {error:.{decimals}f}")
    return " | ".join(cells)


def git_commit() -> str:
    """The commit of this checkout, marked when files differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def evaluate(
    plan: Plan, rooms: int, batch: int, processes: int, *, show: bool = False
) -> list[RoomResult]:
    """Evaluate so many rooms, `batch` at a time in each process."""
    seeds = [
        range(start, min(start + batch, FIRST_SEED + rooms))
        for start in range(FIRST_SEED, FIRST_SEED + rooms, batch)
    ]
    if processes == 1:
        model = load_model(plan.config)
        return [result for some in seeds for result in evaluate_rooms(plan, some, model)]
    # One thread each: the network is too small to share.
    context = get_context("spawn")
    executor: Executor = ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,))
    results = []
    with executor:
        for done in executor.map(_in_process, [plan] * len(seeds), seeds):
            results += done
            if show:
                print(f"{len(results)} of {rooms} rooms", file=sys.stderr, flush=True)
    return results


def _in_process(plan: Plan, seeds: Sequence[int]) -> list[RoomResult]:
    return evaluate_rooms(plan, seeds, load_model(plan.config))


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=50)
    add("--lengths", type=int, nargs="+", default=LENGTHS, metavar="N", help="images")
    add("--batch", type=int, default=5, help="rooms stepped together")
    add("--processes", type=int, help="default: one for each core, one with a GPU")
    add("--supersampling", type=int, default=2, help="of the images, as render")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)

    config = Config(checkpoint=arguments.checkpoint, device=arguments.device, every_frame=True)
    model = load_model(config)
    recommended = int(model.settings.get("segment.reset_interval", 0))
    plan = Plan(
        config=config,
        lengths=tuple(sorted({*arguments.lengths})),
        intervals=tuple(dict.fromkeys((0, recommended, 100))),
        gain_interval=recommended,
        supersampling=arguments.supersampling,
    )
    on_gpu = model.device.type == "cuda"
    processes = arguments.processes or (1 if on_gpu else os.cpu_count() or 1)
    began_s = time.perf_counter()
    results = evaluate(plan, arguments.rooms, arguments.batch, processes, show=True)
    summary = summarize(results, plan)
    about = {
        "rooms": arguments.rooms,
        "size": f"{model.image_size}x{3 * model.image_size // 4}",
        "intervals": plan.intervals,
        "gain_interval": plan.gain_interval,
        "seconds": time.perf_counter() - began_s,
        "processes": processes,
        "checkpoint": circumstances.checkpoint(config),
        "hardware": circumstances.hardware(model.device),
        "versions": circumstances.versions(),
        "date": date.today().isoformat(),
        "commit": git_commit(),
    }
    print(markdown(summary, about))
    if arguments.json:
        rooms = [
            {
                "guess": result.guess,
                "errors": {" ".join(map(str, key)): value for key, value in result.errors.items()},
            }
            for result in results
        ]
        content = {**about, "plan": asdict(plan), **summary, "by_room": rooms}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
