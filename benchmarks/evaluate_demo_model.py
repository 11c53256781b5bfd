# SPDX-License-Identifier: Apache-2.0
"""How good the demo model is on rooms it has not seen, under update rules and several resets.

    python benchmarks/evaluate_demo_model.py --json results.json
    python benchmarks/evaluate_demo_model.py --domain second --json second.json
    python benchmarks/evaluate_demo_model.py --rules cut3r ttt3r ttt3r:0.5 brake filt3r

Every room is filmed once, as long as the longest of the lengths; shorter ones are its beginnings.
The network is stepped for several rooms at once, which changes nothing but the speed: segments are
chained as `ttt3r_ros.tracker` does, and a test compares the two. Batches of rooms are shared among
processes; the JSON file is written anew after each. Rooms, images and weights are fixed, so the
numbers can be had again. The second domain is hand-held, in cluttered rooms, halls and corridors,
45 to 100 degrees wide, with families of textures that no training uses. As a yardstick each table
has the classical path of `classical`, whose steps have no length: only its ATE after Sim(3) counts.
Before that, the steps of one stream are timed under every rule.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import classical
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import circumstances
from ttt3r_ros.evaluation.metrics.drift import motion_errors
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.model import Model, load_model
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState, Ttt3r, UpdateRule, find_update_rule
from ttt3r_ros.simulation import make_cluttered_rooms, make_rooms, make_trajectory, render
from ttt3r_ros.simulation.textures import other_atlas

FIRST_SEED = 1_000_000  # training and the choice of settings use smaller ones
LENGTHS = (8, 16, 32, 64, 150, 300, 600)
RULES = ("cut3r", "ttt3r")
REFERENCE = "cut3r"  # the other rules are compared with it
RATE_HZ = 10.0
METRICS = {  # their heads and decimals in tables
    "ate_m": ("ATE [m]", 3),
    "ate_by_guess": ("ATE / constant", 3),
    "ate_sim3_m": ("ATE Sim(3) [m]", 3),
    "drift_percent": ("trans per metre [%]", 1),
    "drift_deg_per_m": ("rot per metre [deg]", 1),
    "rpe_trans_m": ("RPE trans [m]", 4),
    "rpe_rot_deg": ("RPE rot [deg]", 3),
    "abs_rel": ("AbsRel", 3),
    "abs_rel_confident": ("AbsRel, confident half", 3),
    "delta_1_25": ("δ < 1.25", 3),
}
DOMAINS = ("robot", "second")
_SECOND_VIEW_DEG = (45.0, 100.0)  # from left to right
_SECOND_VIEWS = 12  # rooms go through the range in so many steps
DRIFT_OVER_M = 1.0  # of the true path
_FOCAL_SHARE = 0.75  # of the width
_RENDERED_AT_ONCE = 4  # images of each room
_DEPTH_STRIDE = 4  # of the rows and columns in which the constant guess of depth is found
_LEAST_M = 1e-3
_BINS = 10
_WARM_UP = 20  # steps of each rule that are not timed
_SAMPLES = 10  # of the process's memory

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated."""

    config: Config  # names the weights and the device
    rules: tuple[str, ...]  # as `find_rule` knows them
    lengths: tuple[int, ...]
    intervals: tuple[int, ...]  # images in a segment; 0: never reset
    gain_interval: int  # the interval whose gains are counted
    supersampling: int
    domain: str = "robot"  # one of DOMAINS


@dataclass(frozen=True, slots=True)
class RoomResult:
    """The errors in one room, by length, each with the METRICS but `ate_by_guess`."""

    guess: dict[int, dict[str, float]]
    features: dict[int, float]  # ATE after Sim(3) of the classical path, by length
    errors: dict[tuple[str, int, int], dict[str, float]]  # by rule, interval, length
    gains: dict[str, Numbers]  # by rule, [_BINS]: how many gains fell into each tenth of 0 to 1


def find_rule(name: str) -> UpdateRule:
    """The update rule of a name; `ttt3r:0.5` is TTT3R's with that damping.

    Raises:
        ValueError: there is none.
    """
    rule, _, damping = name.partition(":")
    if not damping:
        return find_update_rule(name)
    if rule != "ttt3r":
        raise ValueError(f"rule: only ttt3r has a damping, got {name!r}")
    return Ttt3r(float(damping))


class BatchTracker:
    """The tracker's segments for B streams that step together."""

    def __init__(self, network: Network, rule: str, reset_interval: int, batch: int) -> None:
        """Begin in front of the first images."""
        self._network, self._rule = network, find_rule(rule)
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
    seeds: Sequence[int],
    images: int,
    width: int,
    height: int,
    supersampling: int,
    domain: str = "robot",
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield image after image of some rooms.

    Yields:
        Colours, uint8 [B, H, W, 3]; depth in metres [B, H, W]; T_world_camera, float64 [B, 4, 4].
    """
    second = domain == "second"
    rooms = make_cluttered_rooms(list(seeds), atlas=other_atlas()) if second else make_rooms(seeds)
    path = make_trajectory(list(seeds), rooms, "free" if second else "robot")
    focal = width * torch.tensor([focal_share(seed, domain) for seed in seeds])
    centre = focal.new_tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(seeds), 2)
    lens = torch.cat((focal[:, None].expand(-1, 2), centre), dim=1)[:, None]
    for start in range(0, images, _RENDERED_AT_ONCE):
        stop = min(images, start + _RENDERED_AT_ONCE)
        poses = path.pose(torch.arange(start, stop, dtype=torch.float64) / RATE_HZ)
        rgb, depth = render(rooms, poses, lens, height, width, supersampling=supersampling)
        for i in range(stop - start):
            yield (255 * rgb[:, i]).round().byte(), depth[:, i], poses[:, i].double()


def focal_share(seed: int, domain: str) -> float:
    """The focal length of a room's camera, as a share of the width."""
    if domain != "second":
        return _FOCAL_SHARE
    narrow, wide = _SECOND_VIEW_DEG
    degrees = narrow + (wide - narrow) * (seed % _SECOND_VIEWS) / (_SECOND_VIEWS - 1)
    return 0.5 / math.tan(math.radians(degrees / 2))


@torch.inference_mode()
def evaluate_rooms(plan: Plan, seeds: Sequence[int], model: Model) -> list[RoomResult]:
    """Film rooms, follow the camera in all ways of the plan, and compare with the truth."""
    network, batch, images = model.network, len(seeds), max(plan.lengths)
    width, height = model.image_size, 3 * model.image_size // 4
    trackers = {
        (rule, interval): BatchTracker(network, rule, interval, batch)
        for rule in plan.rules
        for interval in plan.intervals
    }
    poses: dict[tuple[str, int], list[Tensor]] = {key: [] for key in trackers}
    depth_errors: dict[tuple[str, int], list[Tensor]] = {key: [] for key in trackers}
    true_poses, true_depths, pictures = [], [], []
    gains = {rule: torch.zeros(batch, _BINS) for rule in plan.rules}
    shots = film(seeds, images, width, height, plan.supersampling, plan.domain)
    for rgb, true_m, T_world_camera in shots:
        pixels = rgb.permute(0, 3, 1, 2).to(model.device).float()
        features = network.encode(pixels.div_(255).sub_(0.5).div_(0.5))
        true_poses.append(T_world_camera)
        pictures.append(rgb.numpy())
        true_depths.append(true_m[:, ::_DEPTH_STRIDE, ::_DEPTH_STRIDE].clone())
        for (rule, interval), tracker in trackers.items():
            T_first_camera, prediction = tracker.step(features)
            poses[rule, interval].append(T_first_camera)
            seen = (prediction.points[..., 2].cpu(), true_m, prediction.confidence.cpu())
            wrong = _depth_errors(*seen)
            depth_errors[rule, interval].append(wrong)
            # A new state takes all of its first image; later segments begin with a shared one.
            if interval == plan.gain_interval and len(true_poses) > 1:
                gains[rule] += torch.stack([g.cpu().histc(_BINS, 0, 1) for g in prediction.gain])
    truth = torch.stack(true_poses, dim=1).numpy()
    depth = torch.stack(true_depths, dim=1)
    answers = {
        key: (torch.stack(poses[key], dim=1).numpy(), torch.stack(depth_errors[key], dim=1).numpy())
        for key in trackers
    }
    results = []
    for room in range(batch):
        errors = {
            (*key, length): _errors(found[room], depth_wrong[room], truth[room], length)
            for key, (found, depth_wrong) in answers.items()
            for length in plan.lengths
        }
        guess = {length: _guess(truth[room], depth[room], length) for length in plan.lengths}
        counts = {rule: count[room].double().numpy() for rule, count in gains.items()}
        focal = width * focal_share(seeds[room], plan.domain)
        K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        followed = classical.path([picture[room] for picture in pictures], K)
        by_length = {n: _sim3(followed[:n], truth[room][:n]) for n in plan.lengths}
        results.append(RoomResult(guess, by_length, errors, counts))
    return results


def _depth_errors(depth_m: Tensor, true_m: Tensor, confidence: Tensor | None = None) -> Tensor:
    """AbsRel, the share below 1.25, and AbsRel of the more confident half: [B, 3] of [B, H, W]."""
    every = (depth_m - true_m).abs() / true_m
    relative = every.mean(dim=(1, 2))
    half = relative
    if confidence is not None:
        middle = confidence.flatten(1).median(dim=1).values[:, None, None]
        good = confidence >= middle
        half = (every * good).sum(dim=(1, 2)) / good.sum(dim=(1, 2))
    quotient = depth_m.clamp(min=_LEAST_M) / true_m
    near = (torch.maximum(quotient, 1 / quotient) < 1.25).float().mean(dim=(1, 2))
    return torch.stack((relative, near, half), dim=1)


def _errors(found: Numbers, depth: Numbers, truth: Numbers, length: int) -> dict[str, float]:
    """Errors over the first images: poses [T, 4, 4] and depth errors [T, 3] of one room."""
    path = trajectory_errors(found[:length], truth[:length]).by_alignment
    abs_rel, delta, confident = depth[:length].mean(axis=0).tolist()
    return {
        "ate_m": _number(path["se3"].ate_rmse_m),
        "ate_sim3_m": _number(path["sim3"].ate_rmse_m),
        **_drift(found[:length], truth[:length]),
        "rpe_trans_m": _number(path["none"].rpe_trans_rmse_m),
        "rpe_rot_deg": _number(path["none"].rpe_rot_rmse_deg),
        "abs_rel": abs_rel,
        "abs_rel_confident": confident,
        "delta_1_25": delta,
    }


def _guess(truth: Numbers, depth_m: Tensor, length: int) -> dict[str, float]:
    """Errors of a camera that never moves and sees one depth, the best that is known afterwards."""
    still = np.broadcast_to(truth[:1], truth[:length].shape)
    path = trajectory_errors(still, truth[:length])
    seen = depth_m[:length]
    abs_rel, delta, _ = _depth_errors(seen.median().expand_as(seen), seen).mean(dim=0).tolist()
    return {
        "ate_m": path.guess_ate_rmse_m,
        "ate_sim3_m": path.guess_ate_rmse_m,  # a point has no size
        **_drift(still, truth[:length]),
        "rpe_trans_m": _number(path.by_alignment["none"].rpe_trans_rmse_m),
        "rpe_rot_deg": _number(path.by_alignment["none"].rpe_rot_rmse_deg),
        "abs_rel": abs_rel,
        "abs_rel_confident": math.nan,  # a guess is not confident anywhere
        "delta_1_25": delta,
    }


def _drift(found: Numbers, truth: Numbers) -> dict[str, float]:
    """Errors of the motion over a metre of the true path; NaN where the path is shorter."""
    drift = next(iter(motion_errors(found, truth, [DRIFT_OVER_M])), None)
    return {
        "drift_percent": drift.trans_percent if drift else math.nan,
        "drift_deg_per_m": drift.rot_deg_per_m if drift else math.nan,
    }


def _sim3(found: Numbers, truth: Numbers) -> float:
    return _number(trajectory_errors(found, truth).by_alignment["sim3"].ate_rmse_m)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def mean(values: Sequence[float] | Numbers) -> tuple[float, float]:
    """Mean and its standard error over the rooms that have the number (others: NaN)."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return math.nan, math.nan
    spread = numbers.std(ddof=1) if len(numbers) > 1 else math.nan
    return float(numbers.mean()), float(spread / math.sqrt(len(numbers)))


def ratio(
    above: Sequence[float] | Numbers, below: Sequence[float] | Numbers
) -> tuple[float, float]:
    """Ratio of two means and its standard error over rooms, to first order.

    The mean of ratios would be that of the rooms where the camera hardly moves.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return math.nan, math.nan
    a, b = a[both], b[both]
    quotient = float(a.mean() / b.mean())
    return quotient, mean(a - quotient * b)[1] / float(b.mean())


def summarize(results: Sequence[RoomResult], plan: Plan) -> dict[str, Any]:
    """Means with standard errors over rooms: rows for each rule, interval and length.

    Differences are taken room by room: to the reference, and to the constant guess.
    """
    rows, to_reference, to_guess = [], [], []
    for length in plan.lengths:
        guess = _by_metric([r.guess[length] for r in results])
        rows.append(
            {"rule": "constant", "interval": None, "images": length, **_means(guess, guess)}
        )
        yardstick = {metric: np.full(len(results), math.nan) for metric in guess}
        yardstick["ate_sim3_m"] = np.array([r.features[length] for r in results])
        rows.append(
            {"rule": "features", "interval": None, "images": length, **_means(yardstick, guess)}
        )
        for interval in plan.intervals:
            found = {
                rule: _by_metric([r.errors[rule, interval, length] for r in results])
                for rule in plan.rules
            }
            for rule, numbers in found.items():
                name: dict[str, Any] = {"rule": rule, "interval": interval, "images": length}
                rows.append({**name, **_means(numbers, guess)})
                to_guess.append({**name, **_means(_minus(numbers, guess), guess)})
                if REFERENCE in found and rule != REFERENCE:
                    paired = _minus(numbers, found[REFERENCE])
                    to_reference.append({**name, **_means(paired, guess)})
    gains = {rule: np.sum([r.gains[rule] for r in results], axis=0) for rule in plan.rules}
    return {
        "rows": rows,
        f"minus_{REFERENCE}": to_reference,
        "minus_constant": to_guess,
        "gain_histogram": {
            rule: (count / max(1.0, np.sum(count))).tolist() for rule, count in gains.items()
        },
    }


def _by_metric(rooms: Sequence[dict[str, float]]) -> dict[str, Numbers]:
    """The numbers of all rooms, by metric."""
    return {metric: np.array([room[metric] for room in rooms]) for metric in rooms[0]}


def _minus(one: dict[str, Numbers], other: dict[str, Numbers]) -> dict[str, Numbers]:
    return {metric: one[metric] - other[metric] for metric in one}


def _means(
    numbers: dict[str, Numbers], guess: dict[str, Numbers]
) -> dict[str, tuple[float, float]]:
    """Means with standard errors, and the ATE's ratio to that of the constant guess."""
    means = {metric: mean(values) for metric, values in numbers.items()}
    return {**means, "ate_by_guess": ratio(numbers["ate_m"], guess["ate_m"])}


@torch.inference_mode()
def measure_steps(plan: Plan, model: Model, steps: int) -> dict[str, Any]:
    """Time the steps of one stream under each rule in turn, and watch the memory.

    Whatever else the machine does meets all rules alike. The first steps are not counted.

    Returns:
        `by_rule`: median milliseconds of a step, the image's encoding included, and the bytes of
        the state after the first and after the last image. `rss_bytes`: memory of this process,
        for all rules together, at even distances from the end of the warm-up to the last image.
    """
    network, width = model.network, model.image_size
    rules = {name: find_rule(name) for name in plan.rules}
    states: dict[str, RecurrentState] = {}
    times: dict[str, list[float]] = {name: [] for name in rules}
    first_bytes: dict[str, int] = {}
    rss_bytes = []
    images = _WARM_UP + steps
    for index, (rgb, _, _) in enumerate(film([FIRST_SEED], images, width, 3 * width // 4, 1)):
        pixels = rgb.permute(0, 3, 1, 2).to(model.device).float().div_(255).sub_(0.5).div_(0.5)
        for name, rule in rules.items():
            network.update_rule = rule
            if name not in states:
                states[name] = network.initial_state()
            began_s = time.perf_counter()
            states[name], prediction = network.step(states[name], pixels)
            prediction.pose.cpu()  # waits for the device
            if index >= _WARM_UP:
                times[name].append(time.perf_counter() - began_s)
            first_bytes.setdefault(name, _state_bytes(states[name]))
        if index >= _WARM_UP and (index - _WARM_UP) % max(1, steps // _SAMPLES) == 0:
            rss_bytes.append(_resident_bytes())
    by_rule = {
        name: {
            "step_ms_median": 1e3 * float(np.median(times[name])),
            "state_bytes_first": first_bytes[name],
            "state_bytes_last": _state_bytes(states[name]),
        }
        for name in rules
    }
    rss_bytes.append(_resident_bytes())
    load = os.getloadavg()[0]
    return {"by_rule": by_rule, "rss_bytes": rss_bytes, "steps": steps, "load_average": load}


def _state_bytes(state: RecurrentState) -> int:
    return sum(tensor.nbytes for tensor in state.to_tensors().values())


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def markdown(summary: dict[str, Any], about: dict[str, Any]) -> str:
    """The summary as tables, with its circumstances below."""
    heads = [head for head, _ in METRICS.values()]
    lines = []
    for interval in about["intervals"]:
        rows = [row for row in summary["rows"] if row["interval"] in (None, interval)]
        lines += [f"**{_reset(interval)}**", "", *_table(heads, rows), ""]
    for interval in about["intervals"]:
        rows = [row for row in summary[f"minus_{REFERENCE}"] if row["interval"] == interval]
        if rows:
            title = f"**Minus {REFERENCE} room by room, {_reset(interval)}**"
            lines += [title, "", *_table(heads, rows), ""]
    lines += [
        "**ATE minus that of the constant guess room by room [m]**",
        "",
        *_head("images", "rule", *map(_reset, about["intervals"])),
    ]
    by_case = {(r["images"], r["rule"], r["interval"]): r for r in summary["minus_constant"]}
    for images, rule in dict.fromkeys((images, rule) for images, rule, _ in by_case):
        cells = [_cell(by_case[images, rule, i]["ate_m"], 3) for i in about["intervals"]]
        lines.append(_line(images, rule, *cells))
    lines += [
        "",
        f"**Gain, {_reset(about['gain_interval'])}, the first image left out: share of the "
        "state's tokens**",
        "",
        *_head("rule", *(f"{i / _BINS:.1f}-{(i + 1) / _BINS:.1f}" for i in range(_BINS))),
    ]
    for rule, shares in summary["gain_histogram"].items():
        lines.append(_line(rule, *(f"{share:.1%}" for share in shares)))
    steps = about["steps"]
    lines += [
        "",
        "**One stream**",
        "",
        *_head("rule", "step, median [ms]", "state, first image [bytes]", "state, last image"),
    ]
    for rule, cost in steps["by_rule"].items():
        sizes = (cost["state_bytes_first"], cost["state_bytes_last"])
        lines.append(_line(rule, f"{cost['step_ms_median']:.2f}", *sizes))
    memory = steps["rss_bytes"]
    lines += [
        "",
        f"Steps: {steps['steps']} of each rule in turn, encoder included, threads: "
        f"{about['hardware']['threads']}, load average {steps['load_average']:.1f}. Memory of the "
        f"process meanwhile: {memory[0] / 2**20:.1f} MiB at the first of these images, "
        f"{memory[-1] / 2**20:.1f} MiB at the last. "
        f"Means over {about['rooms']} rooms ± their standard errors; seeds from {FIRST_SEED}, "
        f"{about['domain']} domain, "
        f"{about['size']} at {RATE_HZ:g} Hz, nothing scaled. ATE after SE(3) unless named. "
        f"Per metre: over {DRIFT_OVER_M:g} m of the true path. "
        "The constant is a camera that never moves and sees one depth, the truth's median. "
        f"Weights {about['checkpoint']['name']} (SHA-256 {about['checkpoint']['sha256']}). "
        f"{about['hardware']['gpu'] or about['hardware']['cpu']}, processes: {about['processes']}, "
        f"{about['seconds']:.0f} s, torch {about['versions']['torch']}, "
        f"evo {about['versions']['evo']}, {about['date']}, commit {about['commit']}.",
    ]
    return "\n".join(lines)


def _reset(interval: int) -> str:
    return f"reset every {interval} images" if interval else "no resets"


def _line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*heads: str) -> list[str]:
    return [_line(*heads), "|---" * len(heads) + "|"]


def _table(heads: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = _head("images", "rule", *heads)
    for row in rows:
        cells = [_cell(row[metric], decimals) for metric, (_, decimals) in METRICS.items()]
        lines.append(_line(row["images"], row["rule"], *cells))
    return lines


def _cell(number: tuple[float, float], decimals: int) -> str:
    value, error = number
    return "-" if math.isnan(value) else f"{value:.{decimals}f} ± {error:.{decimals}f}"


def evaluate(plan: Plan, rooms: int, batch: int, processes: int) -> Iterator[list[RoomResult]]:
    """Evaluate so many rooms and yield them as they are done, `batch` at a time per process."""
    seeds = [
        range(start, min(start + batch, FIRST_SEED + rooms))
        for start in range(FIRST_SEED, FIRST_SEED + rooms, batch)
    ]
    if processes == 1:
        model = load_model(plan.config)
        for some in seeds:
            yield evaluate_rooms(plan, some, model)
        return
    # One thread each: the network is too small to share.
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as executor:
        yield from executor.map(_in_process, [plan] * len(seeds), seeds)


def _in_process(plan: Plan, seeds: Sequence[int]) -> list[RoomResult]:
    return evaluate_rooms(plan, seeds, load_model(plan.config))


def write(file: Path, about: dict[str, Any], plan: Plan, results: Sequence[RoomResult]) -> None:
    """Write the numbers of the rooms so far."""
    rooms = [
        {
            "guess": result.guess,
            "features": result.features,
            "errors": {" ".join(map(str, key)): value for key, value in result.errors.items()},
        }
        for result in results
    ]
    content = {**about, "plan": asdict(plan), **summarize(results, plan), "by_room": rooms}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=50)
    add("--lengths", type=int, nargs="+", default=LENGTHS, metavar="N", help="images")
    add("--rules", nargs="+", default=RULES, metavar="RULE", help="also ttt3r:DAMPING")
    add("--intervals", type=int, nargs="+", metavar="N", help="images in a segment; 0: no resets")
    add("--domain", choices=DOMAINS, default=DOMAINS[0])
    add("--batch", type=int, default=5, help="rooms stepped together")
    add("--processes", type=int, help="default: one for each core, one with a GPU")
    add("--supersampling", type=int, default=2, help="of the images, as render")
    add("--timed", type=int, default=300, help="steps of one stream, under each rule")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)

    config = Config(checkpoint=arguments.checkpoint, device=arguments.device, every_frame=True)
    model = load_model(config)
    recommended = int(model.settings.get("segment.reset_interval", 0))
    intervals = tuple(dict.fromkeys(arguments.intervals or (0, recommended, 100)))
    plan = Plan(
        config=config,
        rules=tuple(dict.fromkeys(arguments.rules)),
        lengths=tuple(sorted({*arguments.lengths})),
        intervals=intervals,
        gain_interval=recommended if recommended in intervals else intervals[0],
        supersampling=arguments.supersampling,
        domain=arguments.domain,
    )
    on_gpu = model.device.type == "cuda"
    processes = arguments.processes or (1 if on_gpu else os.cpu_count() or 1)
    about = {
        "size": f"{model.image_size}x{3 * model.image_size // 4}",
        "domain": plan.domain,
        "intervals": plan.intervals,
        "gain_interval": plan.gain_interval,
        "processes": processes,
        **circumstances.of_run(config, model.device),
        "steps": measure_steps(plan, model, arguments.timed),
    }
    began_s = time.perf_counter()
    results: list[RoomResult] = []
    for done in evaluate(plan, arguments.rooms, arguments.batch, processes):
        results += done
        about |= {"rooms": len(results), "seconds": time.perf_counter() - began_s}
        print(
            f"{len(results)} of {arguments.rooms} rooms, {about['seconds']:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if arguments.json:
            write(arguments.json, about, plan, results)
    print(markdown(summarize(results, plan), about))


if __name__ == "__main__":
    main()
