# SPDX-License-Identifier: Apache-2.0
"""Faults of the camera in rooms the model has not seen: which are noticed, when, and what follows.

    python benchmarks/evaluate_faults.py --json faults.json

Each room is filmed once; robots film rooms of even seeds and hands those of odd ones. Every fault
is put into the same film, and the run up to it is shared. Good films of other kinds tell how often
there are false alarms. Limits are chosen on `--first-seed 950000`, figures are reported on the
default seeds. Rooms, films and weights are fixed, so the numbers can be had again.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.config import Config, TrackingConfig
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.geometry import Transform, inverse, rotation_vector
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.simulation import Rooms, Trajectory, add_noise, make_rooms, make_trajectory, render
from ttt3r_ros.simulation.faults import PICTURE_FAULTS, kidnapped, turned
from ttt3r_ros.simulation.movers import Movers
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame, TrackingState

FIRST_SEED = 2_000_000  # training, choices and other reports use smaller ones
CUTS = ("kidnapped", "180 degrees")
FAULTS = (*PICTURE_FAULTS, *CUTS)
GOOD = ("robot or hand", "at rest", "at rest, no noise", "moving things", "exposure", "2 Hz")
DURATION = 12
_RATE_HZ, _SLOW_HZ = 10.0, 2.0
_FOCAL_SHARE = 0.75  # of the width
_NOISE = 0.01  # of the camera, colours being 0 to 1
_MOVING, _EXPOSURE, _EXPOSURE_PERIOD_S = 3, 0.4, 8.0
_WATCHED = 5  # images after a cut in which it should be noticed
_IN_TIME = 15  # images after a fault in which tracking should be back
_QUANTILES = (0.0, 0.001, 0.01, 0.5, 0.99, 0.999, 1.0)
_NS_PER_S = 1_000_000_000

Pictures = npt.NDArray[np.uint8]  # [F, H, W, 3]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is filmed, in images."""

    config: Config  # names the weights and the device
    clean: int = 100  # the film of a room
    good: int = 40  # each of the other good films
    onset: int = 40  # the first faulty image, a few later in some rooms
    duration: int = DURATION  # of a fault
    after: int = 25  # the fault


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of one image."""

    state: TrackingState
    compared: dict[str, float]  # what limits are for
    T_odom_camera: Transform


@dataclass(frozen=True, slots=True)
class Run:
    """A film with a fault from image `first` to the one before `stop`."""

    images: list[Judged]
    first: int
    stop: int
    cut: bool  # one image to the next: both are good, but not of one place
    step_errors_m: list[float]  # of the faulty images that were not LOST
    step_errors_deg: list[float]


class Follower:
    """The tracker with what its images were judged by."""

    def __init__(self, model: Model, config: Config) -> None:
        """Begin in front of the first image."""
        self._model = model
        self._tracker = Tracker(model, config)

    def step(self, frame: Frame) -> Judged:
        """Follow one image."""
        result = self._tracker.step(frame)
        compared = dict(self._tracker.monitor.compared)
        return Judged(result.state, compared, result.T_odom_camera)

    def split(self) -> Follower:
        """Return one that has seen the same; the weights are shared."""
        return copy.deepcopy(self, {id(self._model): self._model})


def follow(
    follower: Follower, rgb: Pictures, from_ns: int = 0, rate_hz: float = _RATE_HZ
) -> list[Judged]:
    """Follow pictures [F, H, W, 3] that begin at `from_ns`."""
    period_ns = round(_NS_PER_S / rate_hz)
    return [follower.step(Frame(from_ns + i * period_ns, image)) for i, image in enumerate(rgb)]


class Studio:
    """One room with a camera on its path."""

    def __init__(self, seed: int, width: int) -> None:
        """Build it for pictures of `width` times three quarters of that."""
        self.seed = seed
        self.room: Rooms = make_rooms(seed)
        self.path: Trajectory = make_trajectory(
            seed, self.room, "handheld" if seed % 2 else "robot"
        )
        self._width, self._height = width, 3 * width // 4

    def film(
        self,
        poses: Tensor,
        rooms: Rooms | None = None,
        noise: float = _NOISE,
        gain: float | Tensor = 1.0,
    ) -> Pictures:
        """Film from poses [1, F, 4, 4], or in rooms [F] of its own for each picture."""
        focal = _FOCAL_SHARE * self._width
        lens = (focal, focal, (self._width - 1) / 2, (self._height - 1) / 2)
        if rooms is None:
            rgb = render(self.room, poses, lens, self._height, self._width).rgb[0]
        else:
            rgb = render(rooms, poses[0, :, None], lens, self._height, self._width).rgb[:, 0]
        generator = torch.Generator().manual_seed(self.seed)
        rgb = add_noise((gain * rgb).clamp(0, 1), noise, generator)
        pictures: Pictures = (255 * rgb).round().byte().numpy()
        return pictures

    def good(self, images: int) -> Iterator[tuple[str, Pictures, float]]:
        """Yield good films by name, but the plain one: pictures and their rate."""
        t_s = _times(images)
        poses = self.path.pose(t_s)
        still = poses[:, :1].expand_as(poses)
        yield "at rest", self.film(still), _RATE_HZ
        yield "at rest, no noise", self.film(still, noise=0.0), _RATE_HZ
        yield (
            "moving things",
            self.film(poses, Movers(self.seed, self.room, _MOVING).at(t_s)),
            _RATE_HZ,
        )
        gain = (_EXPOSURE * (2 * torch.pi / _EXPOSURE_PERIOD_S * t_s).sin()).exp().float()
        yield "exposure", self.film(poses, gain=gain[:, None, None, None]), _RATE_HZ
        yield "2 Hz", self.film(self.path.pose(_times(images, _SLOW_HZ))), _SLOW_HZ


def _times(images: int, rate_hz: float = _RATE_HZ) -> Tensor:
    return torch.arange(images, dtype=torch.float64) / rate_hz


def evaluate_room(
    plan: Plan, seed: int, model: Model, faults: Sequence[str]
) -> tuple[dict[str, list[Judged]], dict[str, Run]]:
    """Follow the good films and the faulty ones of one room, by name."""
    studio = Studio(seed, model.image_size)
    first = plan.onset + seed % 8  # anywhere in a segment
    stop = first + plan.duration
    t_s = _times(max(plan.clean, stop + plan.after))
    poses = studio.path.pose(t_s)
    film = studio.film(poses)
    follower = Follower(model, plan.config)
    before = follow(follower, film[:first])
    good = {GOOD[0]: before + follow(follower.split(), film[first : plan.clean], _stamp_ns(first))}
    for name, pictures, rate_hz in studio.good(plan.good):
        good[name] = follow(Follower(model, plan.config), pictures, rate_hz=rate_hz)
    runs = {}
    for name in faults:
        cut, truth, end = name in CUTS, poses, stop + plan.after
        if cut:
            end = first + plan.after
            truth = kidnapped(studio.path, t_s, first) if name == CUTS[0] else turned(poses, first)
            faulty = studio.film(truth[:, first:end])
        else:
            faulty = PICTURE_FAULTS[name](film[:end], first, stop, seed)[first:]
        images = before + follow(follower.split(), faulty, _stamp_ns(first))
        errors = [] if cut else list(_step_errors(images, truth[0].double().numpy(), first, stop))
        runs[name] = Run(
            images,
            first,
            first + 1 if cut else stop,
            cut,
            [metres for metres, _ in errors],
            [degrees for _, degrees in errors],
        )
    return good, runs


def _stamp_ns(image: int) -> int:
    return round(image * _NS_PER_S / _RATE_HZ)


def _step_errors(
    images: Sequence[Judged], truth: npt.NDArray[np.float64], first: int, stop: int
) -> Iterator[tuple[float, float]]:
    """Errors in metres and degrees of the motion since the image before, where both have poses."""
    for i in range(first, stop):
        if TrackingState.LOST in (images[i - 1].state, images[i].state):
            continue
        step = inverse(images[i - 1].T_odom_camera) @ images[i].T_odom_camera
        error = inverse(inverse(truth[i - 1]) @ truth[i]) @ step
        angle = float(np.linalg.norm(rotation_vector(error)))
        yield float(np.linalg.norm(error[:3, 3])), float(np.degrees(angle))


def summarize_fault(runs: Sequence[Run]) -> dict[str, Any]:
    """Shares of the runs and medians over them; times in images, the first faulty one is 1."""
    noticed, lost, losses, back = [], [], [], []
    for run in runs:
        watched = range(run.first, run.first + _WATCHED if run.cut else run.stop)
        alarms = [i for i in watched if run.images[i].state >= TrackingState.UNCERTAIN]
        lost_at = [i for i in watched if run.images[i].state is TrackingState.LOST]
        lost += [i - run.first + 1 for i in lost_at[:1]]
        states = [image.state for image in run.images[run.first - 1 :]]
        losses.append(_entries(states, TrackingState.LOST))
        if alarms:
            noticed.append(alarms[0] - run.first + 1)
            good_again = range(max(run.stop, alarms[0] + 1), len(run.images))
            tracked = [i for i in good_again if run.images[i].state is TrackingState.TRACKING]
            back += [i - run.stop + 1 for i in tracked[:1]]
    errors_m = [error for run in runs for error in run.step_errors_m]
    errors_deg = [error for run in runs for error in run.step_errors_deg]
    return {
        "runs": len(runs),
        "noticed": len(noticed) / len(runs),
        "images_to_notice": _median(noticed),
        "most_images_to_notice": max(noticed, default=None),
        "lost": len(lost) / len(runs),
        "images_to_lost": _median(lost),
        "losses": float(np.mean(losses)),
        "recovered": sum(b <= _IN_TIME for b in back) / len(noticed) if noticed else None,
        "images_to_recover": _median(back),
        "step_error_m": _median(errors_m),
        "step_error_deg": _median(errors_deg),
    }


def summarize_good(films: Sequence[Sequence[Judged]]) -> dict[str, Any]:
    """False alarms per 1000 images."""
    states = [[image.state for image in film] for film in films]
    images = sum(map(len, states))

    def rate(count: int) -> float:
        return 1000 * count / images

    return {
        "images": images,
        "uncertain_per_1000": rate(sum(film.count(TrackingState.UNCERTAIN) for film in states)),
        "lost_per_1000": rate(sum(film.count(TrackingState.LOST) for film in states)),
        "losses_per_1000": rate(sum(_entries(film, TrackingState.LOST) for film in states)),
    }


def _entries(states: Sequence[TrackingState], state: TrackingState) -> int:
    before = [TrackingState.INITIALIZING, *states]
    return sum(
        now is state and last is not state for last, now in zip(before, states, strict=False)
    )


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def signal_quantiles(
    good: dict[str, list[list[Judged]]], runs: dict[str, list[Run]]
) -> dict[str, dict[str, Any]]:
    """Quantiles of what limits are for, by signal and by kind of images."""
    groups = {"good": [image for films in good.values() for film in films for image in film]}
    for name, some in runs.items():
        groups[f"{name}, first"] = [run.images[run.first] for run in some]
        if name not in CUTS:
            groups[f"{name}, later"] = [
                i for run in some for i in run.images[run.first + 1 : run.stop]
            ]
    signals = dict.fromkeys(name for image in groups["good"] for name in image.compared)
    table: dict[str, dict[str, Any]] = {}
    for signal in signals:
        table[signal] = {}
        for group, images in groups.items():
            values = [image.compared[signal] for image in images if signal in image.compared]
            if values:
                quantiles = np.quantile(values, _QUANTILES).tolist()
                table[signal][group] = {"images": len(values), "quantiles": quantiles}
    return table


def markdown(summary: dict[str, Any], about: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        "| fault | noticed | images to notice, median (most) | LOST | images to LOST | "
        f"times LOST | back within {_IN_TIME} | images to be back | step error [cm] | [°] |",
        "|---" * 10 + "|",
    ]
    for name, row in summary["faults"].items():
        notice = f"{_cell(row['images_to_notice'])} ({_cell(row['most_images_to_notice'])})"
        lines.append(
            f"| {name} | {row['noticed']:.0%} | {notice} | {row['lost']:.0%} | "
            f"{_cell(row['images_to_lost'])} | {row['losses']:.2f} | "
            f"{_cell(row['recovered'], '.0%')} | {_cell(row['images_to_recover'])} | "
            f"{_cell(row['step_error_m'], '.1f', 100)} | {_cell(row['step_error_deg'], '.2f')} |"
        )
    lines += [
        "",
        "| good film | images | UNCERTAIN per 1000 | LOST per 1000 | times LOST per 1000 |",
        "|---" * 5 + "|",
    ]
    for name, row in summary["good"].items():
        rates = (row["uncertain_per_1000"], row["lost_per_1000"], row["losses_per_1000"])
        lines.append(
            f"| {name} | {row['images']} | " + " | ".join(f"{r:.1f}" for r in rates) + " |"
        )
    heads = " | ".join(f"{100 * q:g} %" for q in _QUANTILES)
    lines += ["", f"| signal | images | number | {heads} |", "|---" * (3 + len(_QUANTILES)) + "|"]
    for signal, groups in summary["signals"].items():
        for group, row in groups.items():
            cells = " | ".join(f"{q:.3g}" for q in row["quantiles"])
            lines.append(f"| {signal} | {group} | {row['images']} | {cells} |")
    plan = about["plan"]
    lines += [
        "",
        f"{about['rooms']} rooms, seeds from {about['first_seed']}, {about['size']} at "
        f"{_RATE_HZ:g} Hz, noise {_NOISE:g}; faults last {plan['duration']} images, cuts one. The "
        "first faulty image is number 1, and so is the first good one after it. Step errors: of "
        "the motion from image to image while the fault lasts and a pose is given, median. "
        f"Limits {about['thresholds']}. "
        f"Weights {about['checkpoint']['name']} (SHA-256 {about['checkpoint']['sha256']}). "
        f"{about['hardware']['gpu'] or about['hardware']['cpu']}, {about['seconds']:.0f} s, "
        f"torch {about['versions']['torch']}, {about['date']}, commit {about['commit']}.",
    ]
    return "\n".join(lines)


def _cell(value: float | None, form: str = ".3g", factor: float = 1) -> str:
    return "-" if value is None else format(factor * value, form)


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=16)
    add("--first-seed", type=int, default=FIRST_SEED)
    add(
        "--faults",
        nargs="*",
        choices=FAULTS,
        default=FAULTS,
        metavar="NAME",
        help=", ".join(FAULTS),
    )
    add("--duration", type=int, default=DURATION, help="of a fault [images]")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)

    config = Config(
        checkpoint=arguments.checkpoint, device=arguments.device, process_all_images=True
    )
    plan = Plan(config, duration=arguments.duration)
    model = load_model(config)
    began_s = time.perf_counter()
    good: dict[str, list[list[Judged]]] = {}
    runs: dict[str, list[Run]] = {}
    for number in range(arguments.rooms):
        seed = arguments.first_seed + number
        in_room, faulty = evaluate_room(plan, seed, model, arguments.faults)
        for name, film in in_room.items():
            good.setdefault(name, []).append(film)
        for name, run in faulty.items():
            runs.setdefault(name, []).append(run)
        print(f"{number + 1} of {arguments.rooms} rooms", file=sys.stderr, flush=True)
    summary = {
        "faults": {name: summarize_fault(some) for name, some in runs.items()},
        "good": {name: summarize_good(films) for name, films in good.items()},
        "signals": signal_quantiles(good, runs),
    }
    about = {
        "rooms": arguments.rooms,
        "first_seed": arguments.first_seed,
        "size": f"{model.image_size}x{3 * model.image_size // 4}",
        "plan": asdict(plan),
        "thresholds": asdict(TrackingConfig()),
        "seconds": time.perf_counter() - began_s,
        **run_metadata.of_run(config, model.device),
    }
    print(markdown(summary, about))
    if arguments.json:
        states = {
            name: ["".join(image.state.name[0] for image in run.images) for run in some]
            for name, some in runs.items()
        }
        content = {**about, **summary, "states": states}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
