# SPDX-License-Identifier: Apache-2.0
"""Whether the update rules take less of a bad image, and what one bad image does to the next ones.

    python benchmarks/evaluate_gain.py --json gain.json

Robots film rooms that the model has not seen. In the middle of a segment one image is replaced by
a spoilt version of itself; before and after it the film is the same. Everything is compared with
the same step of the unspoilt film, room by room. Rooms, films and weights are fixed, so the
numbers can be had again.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks.evaluate_demo_model import (
    RATE_HZ,
    REFERENCE,
    BatchTracker,
    Numbers,
    film,
    mean,
)
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.simulation import add_noise, make_rooms, make_trajectory, render
from ttt3r_ros.simulation.faults import PICTURE_FAULTS
from ttt3r_ros.simulation.scene import FOCAL_SHARE

FIRST_SEED = 2_600_000  # training, choices and other reports use smaller ones
RULES = (REFERENCE, "ttt3r", "brake", "filt3r")
AFTER = 5  # images followed after the spoilt one
CLEAN, LEFT_OUT = "clean", "left out"
_SUPERSAMPLING = 2
_SUBFRAMES = 9  # of a real exposure, as the simulated camera's
_QUANTILES = (0.05, 0.5, 0.95)

Spoil = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated."""

    config: Config  # names the weights and the device
    rules: tuple[str, ...]
    intervals: tuple[int, ...]  # images in a segment; 0: never reset
    spoilt: int  # the image that is replaced, counted from 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the spoilt image and of those after it, in each of B rooms."""

    gain: Numbers  # [B, S], of the spoilt image; no tokens if it was left out
    # Of the motion from the last image before the spoilt one to that one and those after it.
    errors_m: Numbers  # [B, 1 + AFTER]
    errors_deg: Numbers  # [B, 1 + AFTER]


Case = tuple[str, int, str]  # rule, interval, how the image was spoilt


def _noise(sigma: float) -> Spoil:
    """Gaussian noise of that standard deviation, colours being 0 to 1; another in each room."""

    def spoil(rgb: Tensor, seeds: Sequence[int]) -> Tensor:
        pictures = [
            add_noise(picture / 255, sigma, torch.Generator().manual_seed(seed))
            for picture, seed in zip(rgb, seeds, strict=True)
        ]
        return (255 * torch.stack(pictures)).round().byte()

    return spoil


def _exposure(factor: float) -> Spoil:
    return lambda rgb, _: (factor * rgb.float()).clamp(0, 255).round().byte()


def _fault(name: str) -> Spoil:
    """A fault of the simulated camera that lasts one picture."""

    def spoil(rgb: Tensor, seeds: Sequence[int]) -> Tensor:
        pictures = [
            PICTURE_FAULTS[name](np.stack((picture, picture)), 1, 2, seed)[1]
            for picture, seed in zip(rgb.numpy(), seeds, strict=True)
        ]
        return torch.from_numpy(np.stack(pictures))

    return spoil


SPOILS: dict[str, Spoil] = {
    "blur, 25 % of the width": _fault("blur"),
    "noise 0.05": _noise(0.05),
    "noise 0.15": _noise(0.15),
    "noise 0.4": _noise(0.4),
    "pure noise": _fault("noise"),
    "covered": _fault("covered"),
    "exposure x 0.25": _exposure(0.25),
    "exposure x 4": _exposure(4.0),
}
"""What is made of the good picture, uint8 [B, H, W, 3], with the rooms' seeds."""

SHUTTERS_S = {f"blur, shutter {shutter_s:g} s": shutter_s for shutter_s in (0.1, 0.3)}
"""Blur by the camera's own motion; the longer one than the time between images is a jolt's."""


def exposed(seeds: Sequence[int], image: int, shutter_s: float, width: int, height: int) -> Tensor:
    """The image as it is if the shutter is open so long, uint8 [B, H, W, 3]."""
    rooms = make_rooms(list(seeds))
    focal = FOCAL_SHARE * width
    lens = (focal, focal, (width - 1) / 2, (height - 1) / 2)
    share = (torch.arange(_SUBFRAMES, dtype=torch.float64) - _SUBFRAMES // 2) / _SUBFRAMES
    poses = make_trajectory(list(seeds), rooms).pose(image / RATE_HZ + shutter_s * share)
    rgb = render(rooms, poses, lens, height, width, supersampling=_SUPERSAMPLING).rgb
    return (255 * rgb.mean(dim=1)).round().byte()


@torch.inference_mode()
def evaluate_rooms(plan: Plan, seeds: Sequence[int], model: Model) -> dict[Case, Outcome]:
    """Follow the camera through rooms in all ways of the plan, all rooms at once."""
    network, width = model.network, model.image_size
    height = 3 * width // 4

    def encode(rgb: Tensor) -> Tensor:
        pixels = rgb.permute(0, 3, 1, 2).to(model.device).float()
        return network.encode(pixels.div_(255).sub_(0.5).div_(0.5))

    pictures, true_poses = [], []
    for rgb, _, T_world_camera in film(
        seeds, plan.spoilt + 1 + AFTER, width, height, _SUPERSAMPLING
    ):
        pictures.append(rgb)
        true_poses.append(T_world_camera)
    good = [encode(rgb) for rgb in pictures]
    picture = pictures[plan.spoilt]
    spoilt = {CLEAN: good[plan.spoilt]}
    for name, shutter_s in SHUTTERS_S.items():
        spoilt[name] = encode(exposed(seeds, plan.spoilt, shutter_s, width, height))
    spoilt |= {name: encode(spoil(picture, seeds)) for name, spoil in SPOILS.items()}
    outcomes = {}
    for rule in plan.rules:
        for interval in plan.intervals:
            tracker = BatchTracker(network, rule, interval, len(seeds))
            for features in good[: plan.spoilt]:
                before, _ = tracker.step(features)
            for name in (*spoilt, LEFT_OUT):
                # States are replaced and never written into, so a shallow copy has its own.
                branch = copy.copy(tracker)
                poses, gain = [torch.full_like(before, math.nan)], torch.zeros(len(seeds), 0)
                if name != LEFT_OUT:
                    pose, prediction = branch.step(spoilt[name])
                    poses, gain = [pose], prediction.gain.cpu()
                poses += [branch.step(features)[0] for features in good[plan.spoilt + 1 :]]
                errors = _motion_errors(
                    before, torch.stack(poses, 1), true_poses[plan.spoilt - 1 :]
                )
                outcomes[rule, interval, name] = Outcome(gain.double().numpy(), *errors)
    return outcomes


def _motion_errors(
    before: Tensor, poses: Tensor, truth: Sequence[Tensor]
) -> tuple[Numbers, Numbers]:
    """Errors [B, N] in metres and degrees of the motion from one pose to N later ones.

    Args:
        before: [B, 4, 4]
        poses: [B, N, 4, 4]
        truth: of the one and the later ones, [B, 4, 4] each.
    """
    true_motion = torch.linalg.inv(truth[0])[:, None] @ torch.stack([*truth[1:]], dim=1)
    motion = torch.linalg.inv(before)[:, None] @ poses
    error = torch.linalg.inv(true_motion) @ motion
    cosine = (error[..., :3, :3].diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1) / 2
    metres = torch.linalg.vector_norm(error[..., :3, 3], dim=-1)
    return metres.numpy(), cosine.clamp(-1, 1).acos().rad2deg().numpy()


def summarize(outcomes: dict[Case, Outcome], plan: Plan) -> list[dict[str, Any]]:
    """One row for each case: means over rooms with standard errors, differences room by room."""
    rows = []
    for (rule, interval, name), found in outcomes.items():
        clean = outcomes[rule, interval, CLEAN]
        row: dict[str, Any] = {"rule": rule, "interval": interval, "image": name}
        if name != LEFT_OUT:
            row |= {
                "gain": mean(found.gain.mean(axis=1)),
                "gain_minus_clean": mean((found.gain - clean.gain).mean(axis=1)),
                "tokens_with_less": mean((found.gain < clean.gain).mean(axis=1)),
                "gain_quantiles": np.quantile(found.gain, _QUANTILES).tolist(),
            }
        reference = outcomes.get((REFERENCE, interval, name))
        for unit in ("m", "deg"):
            errors = getattr(found, f"errors_{unit}")
            more = errors - getattr(clean, f"errors_{unit}")
            row[f"error_{unit}"] = [mean(column) for column in errors.T]
            row[f"error_{unit}_minus_clean"] = [mean(column) for column in more.T]
            if reference is not None:
                unspoilt = outcomes[REFERENCE, interval, CLEAN]
                theirs = getattr(reference, f"errors_{unit}") - getattr(unspoilt, f"errors_{unit}")
                row[f"error_{unit}_minus_clean_minus_{REFERENCE}"] = [
                    mean(column) for column in (more - theirs).T
                ]
        rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> str:
    """The rows as tables, with their run_metadata below."""
    plan = about["plan"]
    others = [rule for rule in plan["rules"] if rule != REFERENCE]  # its gain is 1
    lines: list[str] = []
    for interval in plan["intervals"]:
        reset = f"reset every {interval} images" if interval else "no resets"
        cases = {(row["rule"], row["image"]): row for row in rows if row["interval"] == interval}
        lines += _table(f"Mean gain and its difference to clean, {reset}", cases, others, _gain)
        quantiles = ", ".join(f"{100 * q:g} %" for q in _QUANTILES)
        title = f"Gain of tokens, {quantiles}, and share of tokens with less than clean, {reset}"
        lines += _table(title, cases, others, _spread)
        for place, when in ((0, "with"), (1, "1 after"), (AFTER, f"{AFTER} after")):
            title = (
                f"Error of the motion from the image before the spoilt one to the image {when} "
                f"it, difference to clean, {reset}"
            )
            lines += _table(title, cases, plan["rules"], partial(_errors, place=place))
        title = f"The last difference minus that of {REFERENCE}, {reset}"
        if REFERENCE in plan["rules"]:
            lines += _table(title, cases, others, _beside)
    lines.append(
        f"Means over {about['rooms']} rooms ± their standard errors, differences room by room; "
        f'the errors in rows "{CLEAN}" are those themselves. Seeds from {about["first_seed"]}, '
        f"{about['size']} at {RATE_HZ:g} Hz; the spoilt image is number {plan['spoilt'] + 1}. "
        f"Weights {about['checkpoint']['name']} (SHA-256 {about['checkpoint']['sha256']}). "
        f"{about['hardware']['gpu'] or about['hardware']['cpu']}, threads: "
        f"{about['hardware']['threads']}, {about['seconds']:.0f} s, "
        f"torch {about['versions']['torch']}, {about['date']}, commit {about['commit']}."
    )
    return "\n".join(lines)


def _table(
    title: str,
    cases: dict[tuple[str, str], dict[str, Any]],
    rules: Sequence[str],
    cell: Callable[[dict[str, Any]], str],
) -> list[str]:
    """A title and one line for each way of spoiling, one column for each rule."""
    lines = [
        f"**{title}**",
        "",
        f"| image | {' | '.join(rules)} |",
        "|---" * (1 + len(rules)) + "|",
    ]
    for name in dict.fromkeys(name for _, name in cases):
        cells = [cell(cases[rule, name]) for rule in rules]
        if any(text != "-" for text in cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _gain(row: dict[str, Any]) -> str:
    if "gain" not in row:
        return "-"
    if row["image"] == CLEAN:
        return _cell(row["gain"], 4)
    return f"{row['gain'][0]:.4f}, {_cell(row['gain_minus_clean'], 4, sign='+')}"


def _spread(row: dict[str, Any]) -> str:
    if "gain" not in row:
        return "-"
    text = ", ".join(f"{gain:.3f}" for gain in row["gain_quantiles"])
    return text if row["image"] == CLEAN else f"{text}; {row['tokens_with_less'][0]:.0%}"


def _errors(row: dict[str, Any], place: int) -> str:
    if math.isnan(row["error_m"][place][0]):
        return "-"
    suffix, sign = ("", "") if row["image"] == CLEAN else ("_minus_clean", "+")
    metres, degrees = (row[f"error_{unit}{suffix}"][place] for unit in ("m", "deg"))
    return f"{_cell(metres, 2, 100, sign)} cm, {_cell(degrees, 2, sign=sign)}°"


def _beside(row: dict[str, Any]) -> str:
    if row["image"] == CLEAN:
        return "-"
    metres, degrees = (
        row[f"error_{unit}_minus_clean_minus_{REFERENCE}"][AFTER] for unit in ("m", "deg")
    )
    return f"{_cell(metres, 2, 100, '+')} cm, {_cell(degrees, 2, sign='+')}°"


def _cell(number: tuple[float, float], decimals: int, factor: float = 1, sign: str = "") -> str:
    value, error = (factor * part for part in number)
    return f"{value:{sign}.{decimals}f} ± {error:.{decimals}f}"


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=24)
    add("--first-seed", type=int, default=FIRST_SEED)
    add("--rules", nargs="+", default=RULES, metavar="RULE", help="also ttt3r:DAMPING")
    add("--spoilt", type=int, default=17, help="the image that is replaced, counted from 0")
    add("--batch", type=int, default=6, help="rooms stepped together")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)
    if arguments.spoilt < 1:
        parser.error(f"--spoilt: must be at least 1, got {arguments.spoilt}")

    config = Config(
        checkpoint=arguments.checkpoint, device=arguments.device, process_all_images=True
    )
    model = load_model(config)
    recommended = int(model.settings.get("segment.reset_interval", 0))
    intervals = tuple(dict.fromkeys((recommended, 0)))
    plan = Plan(config, tuple(dict.fromkeys(arguments.rules)), intervals, arguments.spoilt)
    began_s = time.perf_counter()
    stop = arguments.first_seed + arguments.rooms
    batches = []
    for first in range(arguments.first_seed, stop, arguments.batch):
        seeds = range(first, min(stop, first + arguments.batch))
        batches.append(evaluate_rooms(plan, seeds, model))
        print(f"{seeds[-1] - arguments.first_seed + 1} rooms", file=sys.stderr, flush=True)
    outcomes = {
        case: Outcome(
            *(
                np.concatenate([getattr(batch[case], name) for batch in batches])
                for name in Outcome.__slots__
            )
        )
        for case in batches[0]
    }
    rows = summarize(outcomes, plan)
    about = {
        "rooms": arguments.rooms,
        "first_seed": arguments.first_seed,
        "size": f"{model.image_size}x{3 * model.image_size // 4}",
        "plan": asdict(plan),
        "seconds": time.perf_counter() - began_s,
        **run_metadata.of_run(config, model.device),
    }
    print(markdown(rows, about))
    if arguments.json:
        content = {**about, "after": AFTER, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
