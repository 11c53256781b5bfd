# SPDX-License-Identifier: Apache-2.0
"""Faults of the camera in rooms the model has not seen: which are noticed, when, and what follows.

    python benchmarks/evaluate_faults.py --json faults.json

Each room is filmed once; robots film rooms of even seeds and hands those of odd ones. Every fault
is put into the same film, and the run up to it is shared. Good films of other kinds tell how often
there are false alarms. Limits are chosen on `--first-seed 950000`, figures are reported on the
default seeds. Rooms, films and weights are fixed, so the numbers can be had again.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import harness, streams
from benchmarks.harness import Context, Numbers, option, table
from benchmarks.streams import NOISE, RATE_HZ, Pictures, frames, lengths
from ttt3r_ros.config import Config, TrackingConfig
from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.loading import Model
from ttt3r_ros.simulation import Rooms, add_noise
from ttt3r_ros.simulation.faults import PICTURE_FAULTS, kidnapped, turned
from ttt3r_ros.simulation.movers import Movers
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame, TrackingState

FIRST_SEED = 2_000_000  # training, choices and other reports use smaller ones
CUTS = ("kidnapped", "180 degrees")
FAULTS = (*PICTURE_FAULTS, *CUTS)
GOOD = ("robot or hand", "at rest", "at rest, no noise", "moving things", "exposure", "2 Hz")
_SLOW_HZ = 2.0
_MOVING, _EXPOSURE, _EXPOSURE_PERIOD_S = 3, 0.4, 8.0
_WATCHED = 5  # images after a cut in which it should be noticed
_IN_TIME = 15  # images after a fault in which tracking should be back
_QUANTILES = (0.0, 0.001, 0.01, 0.5, 0.99, 0.999, 1.0)
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """What is filmed, in images."""

    faults: tuple[str, ...] = option(FAULTS, ", ".join(FAULTS), choices=FAULTS, nargs="*")
    duration: int = option(12, "of a fault [images]")
    clean: int = option(100, "images of the film of a room")
    good: int = option(40, "images of each of the other good films")
    onset: int = option(40, "the first faulty image, a few later in some rooms")
    after: int = option(25, "images after the fault")


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


class TrackedStream:
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

    def split(self) -> TrackedStream:
        """Return one that has seen the same; the weights are shared."""
        return copy.deepcopy(self, {id(self._model): self._model})


def follow(
    stream: TrackedStream, rgb: Pictures, from_ns: int = 0, rate_hz: float = RATE_HZ
) -> list[Judged]:
    """Follow pictures [F, H, W, 3] that begin at `from_ns`."""
    return [stream.step(frame) for frame in frames(rgb, from_ns, rate_hz)]


class Studio(streams.Studio):
    """One room with a camera on its path; a robot's in even ones, a hand's in odd ones."""

    def __init__(self, seed: int, width: int) -> None:
        """Build it for pictures of `width` times three quarters of that."""
        super().__init__(seed, width, style="handheld" if seed % 2 else "robot")
        self.seed = seed

    def pictures(
        self,
        poses: Tensor,
        rooms: Rooms | None = None,
        noise: float = NOISE,
        gain: float | Tensor = 1.0,
    ) -> Pictures:
        """Film from poses [1, F, 4, 4], or in rooms [F] of its own for each picture."""
        if rooms is None:
            rgb = self.render(poses)[0][0]
        else:
            rgb = self.render(poses[0, :, None], rooms)[0][:, 0]
        generator = torch.Generator().manual_seed(self.seed)
        rgb = add_noise((gain * rgb).clamp(0, 1), noise, generator)
        pictures: Pictures = (255 * rgb).round().byte().numpy()
        return pictures

    def good(self, images: int) -> Iterator[tuple[str, Pictures, float]]:
        """Yield good films by name, but the plain one: pictures and their rate."""
        t_s = _times(images)
        poses = self.path.pose(t_s)
        still = poses[:, :1].expand_as(poses)
        yield "at rest", self.pictures(still), RATE_HZ
        yield "at rest, no noise", self.pictures(still, noise=0.0), RATE_HZ
        yield (
            "moving things",
            self.pictures(poses, Movers(self.seed, self.rooms, _MOVING).at(t_s)),
            RATE_HZ,
        )
        gain = (_EXPOSURE * (2 * torch.pi / _EXPOSURE_PERIOD_S * t_s).sin()).exp().float()
        yield "exposure", self.pictures(poses, gain=gain[:, None, None, None]), RATE_HZ
        yield "2 Hz", self.pictures(self.path.pose(_times(images, _SLOW_HZ))), _SLOW_HZ


def _times(images: int, rate_hz: float = RATE_HZ) -> Tensor:
    return torch.arange(images, dtype=torch.float64) / rate_hz


@dataclass(frozen=True, slots=True)
class Room:
    """The good films of one room and the faulty ones, by name."""

    good: dict[str, list[Judged]]
    runs: dict[str, Run]


def evaluate_rooms(context: Context[Options], seeds: Sequence[int]) -> list[Room]:
    """Follow the good films and the faulty ones of some rooms."""
    return [evaluate_room(context, seed) for seed in seeds]


def evaluate_room(context: Context[Options], seed: int) -> Room:
    """Follow the good films and the faulty ones of one room."""
    plan, config, model = context.options, context.config, context.model
    studio = Studio(seed, model.image_size)
    first = plan.onset + seed % 8  # anywhere in a segment
    stop = first + plan.duration
    t_s = _times(max(plan.clean, stop + plan.after))
    poses = studio.path.pose(t_s)
    film = studio.pictures(poses)
    stream = TrackedStream(model, config)
    before = follow(stream, film[:first])
    good = {GOOD[0]: before + follow(stream.split(), film[first : plan.clean], _stamp_ns(first))}
    for name, pictures, rate_hz in studio.good(plan.good):
        good[name] = follow(TrackedStream(model, config), pictures, rate_hz=rate_hz)
    runs = {}
    for name in plan.faults:
        cut, truth, end = name in CUTS, poses, stop + plan.after
        if cut:
            end = first + plan.after
            truth = kidnapped(studio.path, t_s, first) if name == CUTS[0] else turned(poses, first)
            faulty = studio.pictures(truth[:, first:end])
        else:
            faulty = PICTURE_FAULTS[name](film[:end], first, stop, seed)[first:]
        images = before + follow(stream.split(), faulty, _stamp_ns(first))
        errors = [] if cut else list(_step_errors(images, truth[0].double().numpy(), first, stop))
        runs[name] = Run(
            images,
            first,
            first + 1 if cut else stop,
            cut,
            [metres for metres, _ in errors],
            [degrees for _, degrees in errors],
        )
    return Room(good, runs)


def _stamp_ns(image: int) -> int:
    return round(image * _NS_PER_S / RATE_HZ)


def _step_errors(
    images: Sequence[Judged], truth: Numbers, first: int, stop: int
) -> Iterator[tuple[float, float]]:
    """Errors in metres and degrees of the motion since the image before, where both have poses."""
    for i in range(first, stop):
        if TrackingState.LOST in (images[i - 1].state, images[i].state):
            continue
        step = inverse(images[i - 1].T_odom_camera) @ images[i].T_odom_camera
        error = inverse(inverse(truth[i - 1]) @ truth[i]) @ step
        yield lengths(error)


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


def summarize(_: Context[Options], results: Sequence[Room]) -> dict[str, Any]:
    """The numbers of the tables."""
    good = {name: [room.good[name] for room in results] for name in results[0].good}
    runs = {name: [room.runs[name] for room in results] for name in results[0].runs}
    return {
        "thresholds": asdict(TrackingConfig()),
        "faults": {name: summarize_fault(some) for name, some in runs.items()},
        "good": {name: summarize_good(films) for name, films in good.items()},
        "signals": signal_quantiles(good, runs),
        "states": {
            name: ["".join(image.state.name[0] for image in run.images) for run in some]
            for name, some in runs.items()
        },
    }


def markdown(report: dict[str, Any]) -> list[str]:
    """The tables, with what they were made with below."""
    rows: list[list[object]] = [
        [
            name,
            f"{row['noticed']:.0%}",
            f"{_cell(row['images_to_notice'])} ({_cell(row['most_images_to_notice'])})",
            f"{row['lost']:.0%}",
            _cell(row["images_to_lost"]),
            f"{row['losses']:.2f}",
            _cell(row["recovered"], ".0%"),
            _cell(row["images_to_recover"]),
            _cell(row["step_error_m"], ".1f", 100),
            _cell(row["step_error_deg"], ".2f"),
        ]
        for name, row in report["faults"].items()
    ]
    heads = ["fault", "noticed", "images to notice, median (most)", "LOST", "images to LOST"]
    heads += ["times LOST", f"back within {_IN_TIME}", "images to be back", "step error [cm]"]
    lines = table([*heads, "[°]"], rows)
    names = ("uncertain_per_1000", "lost_per_1000", "losses_per_1000")
    lines += table(
        ["good film", "images", "UNCERTAIN per 1000", "LOST per 1000", "times LOST per 1000"],
        (
            [name, row["images"], *(f"{row[n]:.1f}" for n in names)]
            for name, row in report["good"].items()
        ),
    )
    lines += table(
        ["signal", "images", "number", *(f"{100 * q:g} %" for q in _QUANTILES)],
        (
            [signal, group, row["images"], *(f"{q:.3g}" for q in row["quantiles"])]
            for signal, groups in report["signals"].items()
            for group, row in groups.items()
        ),
    )
    return [
        *lines,
        f"{report['rooms']} rooms, seeds from {report['first_seed']}, {report['size']} at "
        f"{RATE_HZ:g} Hz, noise {NOISE:g}; faults last {report['plan']['duration']} images, cuts "
        "one. The first faulty image is number 1, and so is the first good one after it. Step "
        "errors: of the motion from image to image while the fault lasts and a pose is given, "
        f"median. Limits {report['thresholds']}. " + harness.made_with(report),
    ]


def _cell(value: float | None, form: str = ".3g", factor: float = 1) -> str:
    return "-" if value is None else format(factor * value, form)


PROGRAM = harness.Evaluation(
    about=__doc__,
    options=Options,
    first_seed=FIRST_SEED,
    measure=evaluate_rooms,
    summarize=summarize,
    markdown=markdown,
)

if __name__ == "__main__":
    harness.run(PROGRAM)
