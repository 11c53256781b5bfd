# SPDX-License-Identifier: Apache-2.0
"""How good the demo model is on rooms it has not seen, under update rules and several resets.

    python benchmarks/evaluate_demo_model.py --json results.json --processes 2
    python benchmarks/evaluate_demo_model.py --domain second --json second.json
    python benchmarks/evaluate_demo_model.py --rules cut3r ttt3r ttt3r:0.5 brake filt3r

Every room is filmed once, as long as the longest of the lengths; shorter ones are its beginnings.
The network is stepped for several rooms at once, which changes nothing but the speed. Rooms, images
and weights are fixed, so the numbers can be had again. The second domain is hand-held, in
cluttered rooms, halls and corridors, 45 to 100 degrees wide, with families of textures that no
training uses. As a yardstick each table has the classical path of `classical`, whose steps have no
length: only its ATE after Sim(3) counts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import classical, harness
from benchmarks.harness import Context, Numbers, cell, mean, option, ratio, table
from benchmarks.streams import RATE_HZ, BatchTracker, Studio, network_input
from ttt3r_ros.evaluation.metrics.drift import motion_errors
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.simulation import make_cluttered_rooms
from ttt3r_ros.simulation.scene import FOCAL_SHARE
from ttt3r_ros.simulation.textures import other_atlas

FIRST_SEED = 1_000_000  # training and the choice of settings use smaller ones
REFERENCE = "cut3r"  # the other rules are compared with it
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
_DEPTH_STRIDE = 4  # of the rows and columns in which the constant guess of depth is found
_LEAST_M = 1e-3
_BINS = 10
_OTHER_INTERVAL = 100  # images, beside no resets and the recommended ones


@dataclass(frozen=True, slots=True)
class Options:
    """What is evaluated."""

    lengths: tuple[int, ...] = option((8, 16, 32, 64, 150, 300, 600), "images")
    rules: tuple[str, ...] = option(("cut3r", "ttt3r"), "also brake, filt3r, ttt3r:DAMPING")
    intervals: tuple[int, ...] = option(
        (), "images in a segment, 0: no resets; default: 0, the weights' own and 100", type=int
    )
    domain: str = option(DOMAINS[0], "of rooms, cameras and textures", choices=DOMAINS)
    supersampling: int = option(2, "of the images, as render")


def intervals(context: Context[Options]) -> tuple[int, ...]:
    """Images in a segment; 0: never reset."""
    usual = (0, context.model.reset_interval, _OTHER_INTERVAL)
    return context.options.intervals or tuple(dict.fromkeys(usual))


def gain_interval(context: Context[Options]) -> int:
    """The interval whose gains are counted: what the weights recommend, or the first one."""
    found, recommended = intervals(context), context.model.reset_interval
    return recommended if recommended in found else found[0]


def studio(domain: str, seeds: Sequence[int], width: int) -> Studio:
    """The rooms and cameras of a domain."""
    seeds, shares = list(seeds), [focal_share(domain, seed) for seed in seeds]
    if domain == DOMAINS[0]:
        return Studio(seeds, width, focal_shares=shares)
    rooms = make_cluttered_rooms(seeds, atlas=other_atlas())
    return Studio(seeds, width, style="free", rooms=rooms, focal_shares=shares)


def focal_share(domain: str, seed: int) -> float:
    """The focal length of a room's camera, as a share of the width."""
    if domain == DOMAINS[0]:
        return FOCAL_SHARE
    narrow, wide = _SECOND_VIEW_DEG
    degrees = narrow + (wide - narrow) * (seed % _SECOND_VIEWS) / (_SECOND_VIEWS - 1)
    return 0.5 / math.tan(math.radians(degrees / 2))


@dataclass(frozen=True, slots=True)
class RoomResult:
    """The errors in one room, by length, each with the METRICS but `ate_by_guess`."""

    guess: dict[int, dict[str, float]]
    features: dict[int, float]  # ATE after Sim(3) of the classical path, by length
    errors: dict[tuple[str, int, int], dict[str, float]]  # by rule, interval, length
    gains: dict[str, Numbers]  # by rule, [_BINS]: how many gains fell into each tenth of 0 to 1


@torch.inference_mode()
def evaluate_rooms(context: Context[Options], seeds: Sequence[int]) -> list[RoomResult]:
    """Film rooms, follow the camera in all ways that are wanted, and compare with the truth."""
    options, model = context.options, context.model
    network, batch = model.network, len(seeds)
    trackers = {
        (rule, interval): BatchTracker(network, rule, interval, batch)
        for rule in options.rules
        for interval in intervals(context)
    }
    poses: dict[tuple[str, int], list[Tensor]] = {key: [] for key in trackers}
    depth_errors: dict[tuple[str, int], list[Tensor]] = {key: [] for key in trackers}
    true_poses, true_depths, pictures = [], [], []
    gains = {rule: torch.zeros(batch, _BINS) for rule in options.rules}
    filmed = studio(options.domain, seeds, model.image_size)
    for rgb, true_m, T_world_camera in filmed.film(max(options.lengths), options.supersampling):
        features = network.encode(network_input(rgb, model.device))
        true_poses.append(T_world_camera)
        pictures.append(rgb.numpy())
        true_depths.append(true_m[:, ::_DEPTH_STRIDE, ::_DEPTH_STRIDE].clone())
        for (rule, interval), tracker in trackers.items():
            step = tracker.step(features)
            poses[rule, interval].append(step.T_first_camera)
            said = step.prediction
            seen = said.points[..., 2].cpu(), true_m, said.confidence.cpu()
            depth_errors[rule, interval].append(_depth_errors(*seen))
            # A new state takes all of its first image; later segments begin with a shared one.
            if interval == gain_interval(context) and len(true_poses) > 1:
                gains[rule] += torch.stack([g.histc(_BINS, 0, 1) for g in said.gain.cpu()])
    truth = torch.stack(true_poses, dim=1).numpy()
    depth = torch.stack(true_depths, dim=1)
    answers = {
        key: (torch.stack(poses[key], dim=1).numpy(), torch.stack(depth_errors[key], dim=1).numpy())
        for key in trackers
    }
    results = []
    for room, lens in enumerate(filmed.lenses):
        errors = {
            (*key, length): _errors(found[room], depth_wrong[room], truth[room], length)
            for key, (found, depth_wrong) in answers.items()
            for length in options.lengths
        }
        guess = {length: _guess(truth[room], depth[room], length) for length in options.lengths}
        followed = classical.path([picture[room] for picture in pictures], lens.matrix())
        features_m = {n: _ate_sim3_m(followed[:n], truth[room][:n]) for n in options.lengths}
        counts = {rule: count[room].double().numpy() for rule, count in gains.items()}
        results.append(RoomResult(guess, features_m, errors, counts))
    return results


def _depth_errors(depth_m: Tensor, true_m: Tensor, confidence: Tensor) -> Tensor:
    """AbsRel, that of the more confident half, and the share below 1.25: [B, 3] of [B, H, W]."""
    relative = (depth_m - true_m).abs() / true_m
    middle = confidence.flatten(1).median(dim=1).values[:, None, None]
    good = confidence >= middle
    confident = (relative * good).sum(dim=(1, 2)) / good.sum(dim=(1, 2))
    quotient = depth_m.clamp(min=_LEAST_M) / true_m
    near = (torch.maximum(quotient, 1 / quotient) < 1.25).float().mean(dim=(1, 2))
    return torch.stack((relative.mean(dim=(1, 2)), confident, near), dim=1)


def _errors(found: Numbers, depth: Numbers, truth: Numbers, length: int) -> dict[str, float]:
    """Errors over the first images: poses [T, 4, 4] and depth errors [T, 3] of one room."""
    path = trajectory_errors(found[:length], truth[:length]).by_alignment
    abs_rel, confident, delta = depth[:length].mean(axis=0).tolist()
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
    one_depth = seen.median().expand_as(seen), seen, torch.ones_like(seen)
    abs_rel, _, delta = _depth_errors(*one_depth).mean(dim=0).tolist()
    return {
        "ate_m": path.guess_ate_rmse_m,
        "ate_sim3_m": path.guess_ate_rmse_m,  # a point has no size
        **_drift(still, truth[:length]),
        "rpe_trans_m": _number(path.by_alignment["none"].rpe_trans_rmse_m),
        "rpe_rot_deg": _number(path.by_alignment["none"].rpe_rot_rmse_deg),
        "abs_rel": abs_rel,
        "abs_rel_confident": math.nan,  # a guess is not more confident anywhere
        "delta_1_25": delta,
    }


def _drift(found: Numbers, truth: Numbers) -> dict[str, float]:
    """Errors of the motion over a metre of the true path; NaN where the path is shorter."""
    drift = next(iter(motion_errors(found, truth, [DRIFT_OVER_M])), None)
    return {
        "drift_percent": drift.trans_percent if drift else math.nan,
        "drift_deg_per_m": drift.rot_deg_per_m if drift else math.nan,
    }


def _ate_sim3_m(found: Numbers, truth: Numbers) -> float:
    return _number(trajectory_errors(found, truth).by_alignment["sim3"].ate_rmse_m)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def summarize(context: Context[Options], results: Sequence[RoomResult]) -> dict[str, Any]:
    """Means with standard errors over rooms: rows for each rule, interval and length.

    Differences are taken room by room: to the reference, and to the constant guess.
    """
    options, rows, to_reference, to_guess = context.options, [], [], []
    name: dict[str, Any]
    for length in sorted(options.lengths):
        guess = _by_metric([r.guess[length] for r in results])
        features = dict.fromkeys(guess, np.full(len(results), math.nan))
        features["ate_sim3_m"] = np.array([r.features[length] for r in results])
        for rule, numbers in (("constant", guess), ("features", features)):
            name = {"rule": rule, "interval": None, "images": length}
            rows.append({**name, **_means(numbers, guess)})
        for interval in intervals(context):
            found = {
                rule: _by_metric([r.errors[rule, interval, length] for r in results])
                for rule in options.rules
            }
            for rule, numbers in found.items():
                name = {"rule": rule, "interval": interval, "images": length}
                rows.append({**name, **_means(numbers, guess)})
                to_guess.append({**name, **_means(_minus(numbers, guess), guess)})
                if REFERENCE in found and rule != REFERENCE:
                    paired = _minus(numbers, found[REFERENCE])
                    to_reference.append({**name, **_means(paired, guess)})
    gains = {rule: np.sum([r.gains[rule] for r in results], axis=0) for rule in options.rules}
    return {
        "intervals": intervals(context),
        "gain_interval": gain_interval(context),
        "rows": rows,
        f"minus_{REFERENCE}": to_reference,
        "minus_constant": to_guess,
        "gain_histogram": {
            rule: (count / max(1.0, np.sum(count))).tolist() for rule, count in gains.items()
        },
        "by_room": [
            {
                "guess": result.guess,
                "features": result.features,
                "errors": {" ".join(map(str, key)): value for key, value in result.errors.items()},
            }
            for result in results
        ],
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


def markdown(report: dict[str, Any]) -> list[str]:
    """The tables, with what they were made with below."""
    heads = ["images", "rule", *(head for head, _ in METRICS.values())]
    lines = []
    for interval in report["intervals"]:
        rows = [row for row in report["rows"] if row["interval"] in (None, interval)]
        lines += table(heads, map(_cells, rows), _reset(interval))
    for interval in report["intervals"]:
        rows = [row for row in report[f"minus_{REFERENCE}"] if row["interval"] == interval]
        if rows:
            title = f"Minus {REFERENCE} room by room, {_reset(interval)}"
            lines += table(heads, map(_cells, rows), title)
    by_case = {(r["images"], r["rule"], r["interval"]): r for r in report["minus_constant"]}
    lines += table(
        ["images", "rule", *map(_reset, report["intervals"])],
        (
            [
                images,
                rule,
                *(cell(by_case[images, rule, i]["ate_m"], 3) for i in report["intervals"]),
            ]
            for images, rule in dict.fromkeys((images, rule) for images, rule, _ in by_case)
        ),
        "ATE minus that of the constant guess room by room [m]",
    )
    lines += table(
        ["rule", *(f"{i / _BINS:.1f}-{(i + 1) / _BINS:.1f}" for i in range(_BINS))],
        (
            [rule, *(f"{share:.1%}" for share in shares)]
            for rule, shares in report["gain_histogram"].items()
        ),
        f"Gain, {_reset(report['gain_interval'])}, the first image left out: share of the "
        "state's tokens",
    )
    return [
        *lines,
        f"Means over {report['rooms']} rooms ± their standard errors; seeds from "
        f"{report['first_seed']}, {report['plan']['domain']} domain, {report['size']} at "
        f"{RATE_HZ:g} Hz, nothing scaled. ATE after SE(3) unless named. Per metre: over "
        f"{DRIFT_OVER_M:g} m of the true path. The constant is a camera that never moves and sees "
        "one depth, the truth's median; features are the classical path. "
        + harness.made_with(report),
    ]


def _reset(interval: int) -> str:
    return f"reset every {interval} images" if interval else "no resets"


def _cells(row: dict[str, Any]) -> list[str]:
    numbers = [cell(row[metric], decimals) for metric, (_, decimals) in METRICS.items()]
    return [row["images"], row["rule"], *numbers]


PROGRAM = harness.Evaluation(
    about=__doc__,
    options=Options,
    first_seed=FIRST_SEED,
    measure=evaluate_rooms,
    summarize=summarize,
    markdown=markdown,
    rooms=50,
    batch=5,
)

if __name__ == "__main__":
    harness.run(PROGRAM)
