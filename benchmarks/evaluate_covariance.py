# SPDX-License-Identifier: Apache-2.0
"""Whether the covariances of poses tell how large their errors are, in rooms not seen before.

    python benchmarks/evaluate_covariance.py --figure docs/images/covariance.png

Robots film rooms with cameras of several kinds. The errors of each step, and of the pose after
some seconds, are set beside what `ttt3r_ros.tracking.covariance` predicts of them. Its constants
were chosen on `--first-seed 2400000 --rooms 24`; figures are reported on the default seeds. Rooms,
films and weights are fixed, so the numbers can be had again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.geometry import Transform, inverse, rotation_vector
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.simulation.faults import covered
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.tracking.covariance import PoseCovariance
from ttt3r_ros.tracking.signals import SignalMeter, Signals
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Covariance, Frame, TrackingState

FIRST_SEED = 2_600_000  # training, choices and other reports use other ones
_RATE_HZ = 10.0
_NOISE = 0.01  # of a good camera, colours being 0 to 1
CAMERAS: dict[str, dict[str, float]] = {  # of the rooms, one after the other
    "good": {"noise": _NOISE},
    "noisy": {"noise": 0.03},
    "exposure": {"noise": _NOISE, "exposure": 0.4},
    "blur": {"noise": _NOISE, "blur_s": 0.05},
}
DIM, COVERED, HANDHELD = "dim light", "covered", "handheld"
SPECIAL = (DIM, COVERED, HANDHELD)
_LIGHT_LEFT, _DARK_NOISE = 0.12, 2.0  # grey levels
LENGTHS = (10, 50, 100, 200)  # images after which the pose is looked at
_START_EVERY = 25  # images; starts of the pieces that these are of
_BINS = 8
_SIGMAS = (1, 2, 3)
_GAUSSIAN = (0.683, 0.954, 0.997)  # within so many sigmas
_NS_PER_S = 1_000_000_000

Numbers = npt.NDArray[np.float64]
Pictures = npt.NDArray[np.uint8]  # [F, H, W, 3]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is filmed, in images."""

    images: int = 250  # of a room
    special: int = 100  # of a room with one of SPECIAL
    onset: int = 50  # the first dim or covered one
    dim: int = 30
    covered: int = 12


@dataclass(frozen=True, slots=True)
class Image:
    """What is known of one image, and the truth."""

    T_odom_camera: Transform
    T_world_camera: Transform
    signals: Signals
    state: TrackingState
    depth_m: float

    def has_step(self) -> bool:
        """Whether the motion since the image before was followed."""
        return self.state in (TrackingState.TRACKING, TrackingState.UNCERTAIN)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Errors [N, 6] of position and rotation, and their predicted covariances [N, 6, 6]."""

    errors: Numbers
    covariances: Numbers

    def whitened(self, part: slice) -> Numbers:
        """Errors [N, 3] in predicted standard deviations, along the principal axes."""
        if not len(self.errors):
            return np.empty((0, 3))
        variances, axes = np.linalg.eigh(self.covariances[:, part, part])
        along = np.einsum("nji,nj->ni", axes, self.errors[:, part])
        result: Numbers = along / np.sqrt(variances)
        return result

    def sizes(self, part: slice) -> tuple[Numbers, Numbers]:
        """Lengths of the errors [N], and root mean squares [N] that are predicted of them."""
        traces = np.trace(self.covariances[:, part, part], axis1=1, axis2=2)
        return np.linalg.norm(self.errors[:, part], axis=1), np.sqrt(traces)


POSITION, ROTATION = slice(0, 3), slice(3, 6)


def film(seed: int, images: int, width: int, **options: Any) -> tuple[Pictures, Numbers]:
    """Film a room: pictures and T_world_camera [F, 4, 4]."""
    scene = Scene(SceneOptions(seed=seed, width=width, height=3 * width // 4, **options))
    views = [scene.view(i / _RATE_HZ) for i in range(images)]
    poses = [view.T_world_camera.numpy() for view in views]
    return np.stack([view.rgb.numpy() for view in views]), np.stack(poses)


def special_film(kind: str, seed: int, width: int, plan: Plan) -> tuple[Pictures, Numbers]:
    """Film a room by hand, or with dim light or a covered lens for a while."""
    style = "handheld" if kind == HANDHELD else "robot"
    rgb, poses = film(seed, plan.special, width, noise=_NOISE, style=style)
    if kind == COVERED:
        rgb = covered(rgb, plan.onset, plan.onset + plan.covered, seed)
    if kind == DIM:
        dim = slice(plan.onset, plan.onset + plan.dim)
        noise = np.random.default_rng(seed).normal(0, _DARK_NOISE, rgb[dim].shape)
        rgb[dim] = np.clip(np.rint(_LIGHT_LEFT * rgb[dim] + noise), 0, 255)
    return rgb, poses


def follow(model: Model, config: Config, rgb: Pictures, poses: Numbers) -> list[Image]:
    """Track pictures [F, H, W, 3] that were taken at T_world_camera [F, 4, 4]."""
    tracker, meter = Tracker(model, config), SignalMeter()
    images = []
    for i, (picture, truth) in enumerate(zip(rgb, poses, strict=True)):
        result = tracker.step(Frame(round(i * _NS_PER_S / _RATE_HZ), picture))
        signals = meter.measure(
            result.stamp_ns,
            result.rgb,
            result.T_odom_camera,
            result.points,
            result.confidence,
            result.median_confidence,
            result.intrinsics,
        )
        if result.state is TrackingState.LOST:
            meter.new_segment()
        depth_m = float(result.points[..., 2].median())
        images.append(Image(result.T_odom_camera, truth, signals, result.state, depth_m))
    return images


def predicted(images: Sequence[Image]) -> Iterator[tuple[Covariance, Covariance]]:
    """Yield the covariances of pose and velocity of images of which the first begins a frame."""
    covariance = PoseCovariance()
    for image in images:
        covariance.update(image.T_odom_camera, image.signals, image.state, image.depth_m)
        yield covariance.pose, covariance.twist


def pose_errors(images: Sequence[Image]) -> Numbers:
    """Errors of the poses [F, 6] about the odometry's axes, with the first ones laid together."""
    first = images[0]
    T_odom_world = first.T_odom_camera @ inverse(first.T_world_camera)
    errors = []
    for image in images:
        true = T_odom_world @ image.T_world_camera
        turn = np.eye(4)
        turn[:3, :3] = true[:3, :3] @ image.T_odom_camera[:3, :3].T
        position = true[:3, 3] - image.T_odom_camera[:3, 3]
        errors.append(np.concatenate((position, rotation_vector(turn))))
    return np.array(errors)


def step_errors(images: Sequence[Image]) -> Compared:
    """Errors of each motion from one image to the next, in the axes of the camera."""
    errors, covariances = [np.empty((0, 6))], [np.empty((0, 6, 6))]
    twists = [twist for _, twist in predicted(images)]
    for last, now, twist in zip(images, images[1:], twists[1:], strict=False):
        if now.has_step() and last.state is not TrackingState.LOST:
            step = inverse(last.T_odom_camera) @ now.T_odom_camera
            error = inverse(step) @ inverse(last.T_world_camera) @ now.T_world_camera
            errors.append(np.concatenate((error[:3, 3], rotation_vector(error)))[None])
            covariances.append(twist[None] / _RATE_HZ**2)
    return Compared(np.concatenate(errors), np.concatenate(covariances))


def chain_errors(rooms: Sequence[Sequence[Image]], length: int) -> Compared:
    """Errors of poses after `length` images, of pieces that begin at poses known exactly."""
    errors, covariances = [np.empty((0, 6))], [np.empty((0, 6, 6))]
    for images in rooms:
        for start in range(0, len(images) - length, _START_EVERY):
            piece = images[start : start + length + 1]
            if piece[0].state is not TrackingState.LOST:
                errors.append(pose_errors(piece)[-1:])
                *_, (last, _) = predicted(piece)
                covariances.append(last[None])
    return Compared(np.concatenate(errors), np.concatenate(covariances))


def joined(parts: Sequence[Compared]) -> Compared:
    """All of them."""
    return Compared(
        np.concatenate([part.errors for part in parts]),
        np.concatenate([part.covariances for part in parts]),
    )


def summarize(compared: Compared) -> dict[str, Any]:
    """How large errors are and should be, and shares of the components within 1, 2, 3 sigma."""
    row: dict[str, Any] = {"errors": len(compared.errors)}
    for name, part in (("position", POSITION), ("rotation", ROTATION)):
        actual, expected = compared.sizes(part)
        whitened = compared.whitened(part)
        row[name] = {
            "rms": _rms(actual),
            "predicted_rms": _rms(expected),
            "in_sigmas": _rms(whitened),
            "within": [float((np.abs(whitened) < k).mean()) for k in _SIGMAS],
        }
    return row


def _rms(values: Numbers) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def rank_correlation(compared: Compared, part: slice) -> float:
    """Spearman's, of predicted and actual sizes of errors."""
    actual, expected = (_ranks(values) for values in compared.sizes(part))
    count = len(actual)
    return float(1 - 6 * np.square(expected - actual).sum() / (count * (count**2 - 1)))


def _ranks(values: Numbers) -> Numbers:
    return np.argsort(np.argsort(values)).astype(np.float64)


def binned(compared: Compared, part: slice) -> tuple[Numbers, Numbers]:
    """Root mean squares, predicted and actual, in bins of as many errors, by the predicted one."""
    actual, expected = compared.sizes(part)
    bins = np.array_split(np.argsort(expected), _BINS)
    pairs = [(_rms(expected[some]), _rms(actual[some])) for some in bins if len(some)]
    return np.array([p for p, _ in pairs]), np.array([a for _, a in pairs])


@dataclass(frozen=True, slots=True)
class Results:
    """All that was followed: images by room, and rooms by camera or special kind."""

    rooms: dict[str, list[list[Image]]]
    special: dict[str, list[list[Image]]]

    def usual(self) -> list[list[Image]]:
        """The rooms of all cameras."""
        return [room for rooms in self.rooms.values() for room in rooms]

    def chains(self) -> dict[int, Compared]:
        """Errors of poses by the number of images they come after, where there are any."""
        chains = {length: chain_errors(self.usual(), length) for length in LENGTHS}
        return {length: chain for length, chain in chains.items() if len(chain.errors)}


def tables(results: Results) -> dict[str, Any]:
    """The numbers of the report."""
    steps = joined([step_errors(room) for room in results.usual()])
    by_length = {"step": summarize(steps)}
    for length, chain in results.chains().items():
        by_length[f"{length / _RATE_HZ:g} s"] = summarize(chain)
    by_kind = {}
    for name, rooms in {**results.rooms, **results.special}.items():
        images = [image for room in rooms for image in room]
        share = {s.name: sum(i.state is s for i in images) / len(images) for s in TrackingState}
        ends = [(pose_errors(room)[-1], list(predicted(room))[-1][0]) for room in rooms]
        end = Compared(np.array([e for e, _ in ends]), np.array([c for _, c in ends]))
        by_kind[name] = {
            "rooms": len(rooms),
            "images": len(images),
            "states": share,
            "step": summarize(joined([step_errors(room) for room in rooms])),
            "end": summarize(end),
        }
    ranks = [rank_correlation(steps, part) for part in (POSITION, ROTATION)]
    return {"by_length": by_length, "by_kind": by_kind, "rank_correlation": ranks}


def markdown(summary: dict[str, Any], about: dict[str, Any]) -> str:
    """The tables."""
    within = " | ".join(f"within {k}σ" for k in _SIGMAS)
    lines = [
        f"| after | number | position error, predicted [m] | {within} | "
        f"rotation error, predicted [°] | {within} |",
        "|---" * 10 + "|",
    ]
    for name, row in summary["by_length"].items():
        decimals = 4 if name == "step" else 2
        cells = [name, str(row["errors"])]
        for part, unit, digits in (
            (row["position"], 1.0, decimals),
            (row["rotation"], np.degrees(1), 2),
        ):
            actual, expected = (unit * part[key] for key in ("rms", "predicted_rms"))
            cells.append(f"{actual:.{digits}f}, {expected:.{digits}f}")
            cells += [f"{share:.1%}" for share in part["within"]]
        lines.append("| " + " | ".join(cells) + " |")
    shares = " | ".join(f"{share:.1%}" for share in _GAUSSIAN)
    lines.append(f"| as it should be | | equal | {shares} | equal | {shares} |")
    lines += [
        "",
        "| camera | rooms | UNCERTAIN, LOST | errors of steps in predicted σ: "
        "position, rotation | at the end: position error, predicted [m] | rotation [°] |",
        "|---" * 6 + "|",
    ]
    for name, row in summary["by_kind"].items():
        states, step, end = row["states"], row["step"], row["end"]
        position, rotation = end["position"], end["rotation"]
        lines.append(
            f"| {name} | {row['rooms']} | {states['UNCERTAIN']:.1%}, {states['LOST']:.1%} | "
            f"{step['position']['in_sigmas']:.2f}, {step['rotation']['in_sigmas']:.2f} | "
            f"{position['rms']:.2f}, {position['predicted_rms']:.2f} | "
            f"{np.degrees(rotation['rms']):.1f}, {np.degrees(rotation['predicted_rms']):.1f} |"
        )
    plan, ranks = about["plan"], summary["rank_correlation"]
    lines += [
        "",
        f"{about['rooms']} rooms, seeds from {about['first_seed']}, {plan['images']} images each, "
        f"and {about['special_rooms']} of each special kind, {plan['special']} images, "
        f"{plan['dim']} of them dim and {plan['covered']} covered; {about['size']} at "
        f"{_RATE_HZ:g} Hz. Root mean squares over all errors. Poses are compared after pieces "
        f"that begin every {_START_EVERY} images, and share images where they are longer. Within "
        "kσ: of the components along the principal axes. Rank correlation of predicted and actual "
        f"sizes of steps' errors: {ranks[0]:.2f} of positions, {ranks[1]:.2f} of rotations. "
        f"Weights {about['checkpoint']['name']} (SHA-256 {about['checkpoint']['sha256']}). "
        f"{about['hardware']['gpu'] or about['hardware']['cpu']}, {about['seconds']:.0f} s, "
        f"torch {about['versions']['torch']}, {about['date']}, commit {about['commit']}.",
    ]
    return "\n".join(lines)


def draw(results: Results, file: Path) -> None:
    """Draw the figure as a PNG, with the matplotlib that evo brings."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(13.5, 8.2), dpi=100, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
    axes = figure.subplots(2, 3)
    for panel, (title, images) in zip(axes[0], _examples(results), strict=True):
        _draw_run(panel, title, images)
    axes[0, 0].set_ylabel("error of the position [m]")
    axes[0, 0].legend(loc="upper left", frameon=False)
    _draw_ratios(axes[1, 0], results)
    _draw_calibration(axes[1, 1], results)
    _draw_bins(axes[1, 2], results)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.title.set(fontsize=11, fontweight="bold", color=_INK)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    page = PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    page.quantize(_PALETTE, dither=PIL.Image.Dither.NONE).save(file, optimize=True)


_INK, _BLUE, _ORANGE, _GREY = "#1b1f27", "#2f6fb5", "#e07b1f", "#9aa1ad"
_BANDS = ("#b9d3ee", "#e1ecf8")
_PALETTE = 128  # colours; all of them would make the file twice as large
_COLOURS = ("#2f6fb5", "#2a9d74", "#e07b1f", "#b8336a")  # of a step, and of longer and longer


def _examples(results: Results) -> list[tuple[str, list[Image]]]:
    """A room of the first camera, one of the last, and one with a covered lens."""
    first, *_, last = results.rooms.items()
    pick = [(f"a room, camera: {name}", rooms[0]) for name, rooms in (first, last)]
    return [*pick, ("a room, the lens covered for a while", results.special[COVERED][0])]


def _draw_run(panel: Any, title: str, images: Sequence[Image]) -> None:
    seconds = np.arange(len(images)) / _RATE_HZ
    errors = np.linalg.norm(pose_errors(images)[:, POSITION], axis=1)
    sigmas = np.array([np.sqrt(np.trace(pose[:3, :3])) for pose, _ in predicted(images)])
    panel.fill_between(seconds, sigmas, 2 * sigmas, color=_BANDS[1], lw=0, label="predicted, to 2σ")
    panel.fill_between(seconds, 0, sigmas, color=_BANDS[0], lw=0, label="predicted, to 1σ")
    panel.plot(seconds, errors, color=_ORANGE, lw=2, label="true")
    lost = [image.state is TrackingState.LOST for image in images]
    if any(lost):
        times = seconds[np.array(lost)]
        panel.axvspan(times[0], times[-1], color=_GREY, alpha=0.35, lw=0)
        panel.annotate(
            "LOST", (times[-1], 0.94), (6, 0), ("data", "axes fraction"), "offset points"
        )
    panel.set(title=title, xlabel="time [s]", xlim=(0, seconds[-1]), ylim=(0, None))


def _draw_ratios(panel: Any, results: Results) -> None:
    rooms = results.usual()
    for images in rooms:
        errors = np.linalg.norm(pose_errors(images)[1:, POSITION], axis=1)
        sigmas = [np.sqrt(np.trace(pose[:3, :3])) for pose, _ in predicted(images)][1:]
        seconds = np.arange(1, len(images)) / _RATE_HZ
        panel.plot(seconds, errors / np.array(sigmas), color=_BLUE, lw=0.9, alpha=0.6)
    for level in (1, 2):
        panel.axhline(level, color=_INK, lw=1, ls=(0, (4, 3)), zorder=3)
        panel.text(seconds[-1] * 1.015, level, f"{level}σ", va="center", color=_INK)
    panel.set(
        title=f"all {len(rooms)} rooms, a line each",
        xlabel="time [s]",
        ylabel="true / predicted error of the position",
        xlim=(0, seconds[-1]),
        ylim=(0, 3),
    )


def _draw_calibration(panel: Any, results: Results) -> None:
    sigmas = np.linspace(0, 3, 61)
    expected = [math.erf(k / math.sqrt(2)) for k in sigmas]
    panel.plot(sigmas, expected, color=_INK, lw=5, alpha=0.25, label="as it should be")
    for (name, compared), colour in zip(_by_time(results), _COLOURS, strict=False):
        for part, style in ((POSITION, "-"), (ROTATION, ":")):
            whitened = np.abs(compared.whitened(part))
            shares = [float((whitened <= k).mean()) for k in sigmas]
            label = name if part is POSITION else None
            panel.plot(sigmas, shares, color=colour, ls=style, lw=1.8, label=label)
    panel.set(
        title="share of errors within kσ (dotted: rotation)",
        xlabel="k",
        ylabel="share of the errors",
        xlim=(0, 3),
        ylim=(0, 1.01),
    )
    panel.legend(loc="lower right", frameon=False)


def _draw_bins(panel: Any, results: Results) -> None:
    ends = []
    for (name, compared), colour in zip(_by_time(results), _COLOURS, strict=False):
        for part, unit, mark in ((POSITION, 1.0, "o"), (ROTATION, np.degrees(1), "^")):
            expected, actual = (unit * values for values in binned(compared, part))
            fill = colour if part is POSITION else "none"
            label = name if part is POSITION else None
            panel.plot(
                expected, actual, mark, ms=6, color=colour, mfc=fill, label=label, clip_on=False
            )
            ends += [expected.min(), actual.min(), expected.max(), actual.max()]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    panel.plot((low, high), (low, high), color=_INK, lw=5, alpha=0.25, zorder=0)
    panel.set(
        title="more predicted, more found (▵: rotation)",
        xlabel="predicted error [m; ▵ °]",
        ylabel="true error [m; ▵ °]",
        xscale="log",
        yscale="log",
        xlim=(low, high),
        ylim=(low, high),
    )
    panel.legend(loc="upper left", frameon=False)


def _by_time(results: Results) -> list[tuple[str, Compared]]:
    """Errors of steps and of poses after a while, by name."""
    steps = joined([step_errors(room) for room in results.usual()])
    chains = results.chains().items()
    return [
        ("one step", steps),
        *((f"after {length / _RATE_HZ:g} s", chain) for length, chain in chains if length != 100),
    ]


def evaluate(
    plan: Plan, config: Config, model: Model, seeds: Sequence[int], special_rooms: int
) -> Results:
    """Follow all rooms; those of special kinds have the seeds after the others."""
    width = model.image_size
    results = Results({name: [] for name in CAMERAS}, {name: [] for name in SPECIAL})
    for number, seed in enumerate(seeds):
        name = list(CAMERAS)[number % len(CAMERAS)]
        pictures, poses = film(seed, plan.images, width, **CAMERAS[name])
        results.rooms[name].append(follow(model, config, pictures, poses))
        print(f"{number + 1} of {len(seeds)} rooms", file=sys.stderr, flush=True)
    for number in range(special_rooms * len(SPECIAL)):
        kind = SPECIAL[number % len(SPECIAL)]
        pictures, poses = special_film(kind, seeds[-1] + 1 + number, width, plan)
        results.special[kind].append(follow(model, config, pictures, poses))
    return results


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=16, help=f"at least {len(CAMERAS)}, one for each camera")
    add("--special-rooms", type=int, default=4, help="for each of " + ", ".join(SPECIAL))
    add("--first-seed", type=int, default=FIRST_SEED)
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    add("--figure", type=Path, metavar="FILE", help="draw them here")
    arguments = parser.parse_args(words)
    if arguments.rooms < len(CAMERAS) or arguments.special_rooms < 1:
        parser.error(f"--rooms: at least {len(CAMERAS)}, --special-rooms: at least 1")

    config = Config(
        checkpoint=arguments.checkpoint, device=arguments.device, process_all_images=True
    )
    model, plan = load_model(config), Plan()
    began_s = time.perf_counter()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.rooms)
    results = evaluate(plan, config, model, seeds, arguments.special_rooms)
    summary = tables(results)
    about = {
        "rooms": arguments.rooms,
        "special_rooms": arguments.special_rooms,
        "first_seed": arguments.first_seed,
        "size": f"{model.image_size}x{3 * model.image_size // 4}",
        "plan": asdict(plan),
        "seconds": time.perf_counter() - began_s,
        **run_metadata.of_run(config, model.device),
    }
    print(markdown(summary, about))
    if arguments.json:
        content = {**about, **summary}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.figure:
        draw(results, arguments.figure)


if __name__ == "__main__":
    main()
