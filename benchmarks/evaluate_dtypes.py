# SPDX-License-Identifier: Apache-2.0
"""What lower precision does to poses, depth and state, part by part of the network.

    python benchmarks/evaluate_dtypes.py --json dtypes.json
    python benchmarks/evaluate_dtypes.py --device cuda --rooms 8
    python benchmarks/evaluate_dtypes.py --rooms 0             # only the golden sets

Robots film rooms that the model has not seen. The network follows each film in float32 and, image
by image beside it, with one part of it or all in a lower precision. That is by autocast: what the
tracker does with weights that are kept in the precision is the same to the bit, but for the heads,
which stay in float32 there. TF32 is a GPU's own; elsewhere its rounding is imitated. Each way to
compute has its own state, so that rounding may add up in it until it is reset. Deviations are from
float32; the last columns compare both with the truth, room by room. The golden sets, networks of
the published layout with synthetic weights, say how far outputs move where weights are not those of
the demo model. Rooms, films and weights are fixed, so the numbers can be had again.
"""

from __future__ import annotations

import math
import runpy
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import harness
from benchmarks.harness import Context, Numbers, cell, mean, option, table
from benchmarks.lower_precision import CHOICES, DTYPES, FLOAT32, PARTS, computing, covers
from benchmarks.streams import RATE_HZ, BatchTracker, Step, Studio, network_input
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.loading import Model
from ttt3r_ros.network.checkpoint import load_network
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState

FIRST_SEED = 2_700_000  # training, choices and other reports use smaller ones
GOLDEN = Path(__file__).resolve().parent.parent / "test" / "data" / "golden"
GOLDEN_SETS = ("A_dpt_landscape", "B_linear", "C_ttt3r_reset")
NOTHING = "-"  # the part that is switched in what others are compared with
COLUMNS = {  # head, factor and decimals in tables
    "position_m": ("position [mm]", 1e3, 2),
    "position_share": ("of the depth [%]", 100, 3),
    "rotation_deg": ("rotation [deg]", 1, 4),
    "depth": ("depth [%]", 100, 3),
    "depth_p99": ("99 % below [%]", 100, 2),
    "points": ("points [%]", 100, 3),
    "state": ("state [%]", 100, 3),
    "memory": ("memory [%]", 100, 3),
    "ate_m": ("ATE [m]", 1, 4),
    "ate_minus_m": ("minus float32", 1, 4),
    "abs_rel": ("AbsRel", 1, 4),
    "abs_rel_minus": ("minus float32", 1, 4),
}
_SUPERSAMPLING = 2
_DEPTH_STRIDE = 4  # of the rows and columns in which depths are compared
_LEAST_M = 1e-3


class Variant(NamedTuple):
    """One way to compute: a dtype, the part that has it, and images in a segment (0: no end)."""

    dtype: str
    part: str
    interval: int


@dataclass(frozen=True, slots=True)
class Options:
    """What is evaluated; without resets only those parts with more than one of PARTS."""

    images: int = option(1000, "of each room")
    dtypes: tuple[str, ...] = option(DTYPES, "to compare with float32", choices=DTYPES)
    parts: tuple[str, ...] = option(CHOICES, ", ".join(CHOICES), choices=CHOICES)
    intervals: tuple[int, ...] = option(
        (), "images in a segment, 0: no resets; default: as the weights recommend, and 0", type=int
    )
    golden: tuple[str, ...] = option(GOLDEN_SETS, "sets", choices=GOLDEN_SETS, nargs="*")

    def variants(self, interval: int) -> list[Variant]:
        """Return what is compared with float32."""
        parts = [part for part in self.parts if interval or part not in PARTS]
        return [Variant(dtype, part, interval) for dtype in self.dtypes for part in parts]

    def intervals_of(self, model: Model) -> tuple[int, ...]:
        """Images in a segment; 0: never reset."""
        recommended = model.reset_interval
        return self.intervals or tuple(dict.fromkeys((recommended, 0)))


class Stream:
    """A tracker's segments for B rooms in one way to compute."""

    def __init__(self, network: Network, variant: Variant, batch: int) -> None:
        """Begin in front of the first images."""
        self.variant = variant
        self._network = network
        self._tracker = BatchTracker(network, "ttt3r", variant.interval, batch)

    def follow(self, features: dict[str, Tensor]) -> Step:
        """Take one image's features, by the dtype of the encoder.

        Raises:
            ValueError: the network's pose is not finite.
        """
        dtype, part, _ = self.variant
        encoded = dtype if covers(part, "encoder") else FLOAT32
        with computing(self._network, dtype, part):
            try:
                return self._tracker.step(features[encoded])
            except ValueError as error:
                raise ValueError(f"{dtype}, {part}: {error}") from error


def deviations(seen: Prediction, reference: Prediction) -> dict[str, Tensor]:
    """How far an answer is from another, in each of B streams: [B] each."""
    moved = seen.pose_matrix.double() - reference.pose_matrix.double()
    position_m = torch.linalg.vector_norm(moved[:, :3, 3], dim=1)
    # |R - R'| = sqrt(8) sin(angle / 2), which does not lose small angles as their cosine does.
    turned = torch.linalg.matrix_norm(moved[:, :3, :3]) / math.sqrt(8)
    depth = reference.points[..., 2].flatten(1).median(dim=1).values
    return {
        "position_m": position_m,
        "position_share": position_m / depth,
        "rotation_deg": torch.rad2deg(2 * turned.clamp(max=1).asin()),
        "points": _relative(seen.points, reference.points),
    }


def state_deviations(state: RecurrentState, reference: RecurrentState) -> dict[str, Tensor]:
    """Relative norm of the difference of two states' tokens and memories, [B] each."""
    return {
        "state": _relative(state.tokens, reference.tokens),
        "memory": _relative(state.memory, reference.memory),
    }


def _relative(x: Tensor, reference: Tensor) -> Tensor:
    share: Tensor = (x - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)
    return share


class Record:
    """What was found of one stream: deviations and errors of B rooms."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._found: dict[str, list[Tensor]] = defaultdict(list)  # [B] each
        self._depth: list[Tensor] = []  # [B, n] each, relative deviations
        self._poses: list[Tensor] = []  # [B, 4, 4] each

    def add(self, found: dict[str, Tensor]) -> None:
        """Add numbers [B] by name; their mean is what counts."""
        for name, numbers in found.items():
            self._found[name].append(numbers.double().cpu())

    def add_image(
        self, T_first_camera: Tensor, seen: Prediction, reference: Prediction, true_m: Tensor
    ) -> None:
        """Add what is said of an image; true depths are [B, H, W]."""
        stride = slice(None, None, _DEPTH_STRIDE)
        depth, usual, true = (
            depth_m[:, stride, stride].flatten(1).cpu()
            for depth_m in (seen.points[..., 2], reference.points[..., 2], true_m)
        )
        self._depth.append((depth - usual).abs() / usual.clamp(min=_LEAST_M))
        self._poses.append(T_first_camera)
        self.add(deviations(seen, reference))
        self.add({"abs_rel": ((depth - true).abs() / true).mean(dim=1)})

    def summary(self, true_poses: Numbers) -> list[dict[str, float]]:
        """Return the numbers of each room; true poses are [B, T, 4, 4]."""
        means = {name: torch.stack(numbers).mean(dim=0) for name, numbers in self._found.items()}
        depth = torch.cat(self._depth, dim=1).double().numpy()
        poses = torch.stack(self._poses, dim=1).numpy()
        rooms = []
        for room in range(len(poses)):
            path = trajectory_errors(poses[room], true_poses[room]).by_alignment["se3"]
            ate_m = math.nan if path.ate_rmse_m is None else path.ate_rmse_m
            rooms.append(
                {name: float(numbers[room]) for name, numbers in means.items()}
                | {"depth": float(depth[room].mean()), "ate_m": ate_m}
                | {"depth_p99": float(np.quantile(depth[room], 0.99))}
            )
        return rooms


@torch.inference_mode()
def evaluate_rooms(
    context: Context[Options], seeds: Sequence[int]
) -> list[dict[Variant, dict[str, float]]]:
    """Film rooms and follow the cameras in all ways of the plan, side by side.

    Returns:
        The numbers of each room, by variant; float32 is among them as the part "-".
    """
    options, model = context.options, context.model
    network, images = model.network, options.images
    streams = {
        interval: [
            Stream(network, variant, len(seeds))
            for variant in (Variant(FLOAT32, NOTHING, interval), *options.variants(interval))
        ]
        for interval in options.intervals_of(model)
    }
    records: dict[Variant, Record] = defaultdict(Record)
    true_poses = []
    for shot in Studio(list(seeds), model.image_size).film(images, _SUPERSAMPLING):
        true_poses.append(shot.T_world_camera)
        pixels = network_input(shot.rgb, model.device)
        features = {}
        for dtype in dict.fromkeys((FLOAT32, *options.dtypes)):
            with computing(network, dtype, "encoder"):
                features[dtype] = network.encode(pixels)
        for interval, some in streams.items():
            steps = [stream.follow(features) for stream in some]
            usual = steps[0]
            for stream, step in zip(some, steps, strict=True):
                record = records[stream.variant]
                record.add_image(
                    step.T_first_camera, step.prediction, usual.prediction, shot.depth_m
                )
                if usual.ends_segment or (not interval and len(true_poses) == images):
                    record.add(state_deviations(step.state, usual.state))
    truth = torch.stack(true_poses, dim=1).numpy()
    found = {variant: record.summary(truth) for variant, record in records.items()}
    return [
        {variant: rooms[room] for variant, rooms in found.items()} for room in range(len(seeds))
    ]


def summarize(
    _: Context[Options], results: Sequence[dict[Variant, dict[str, float]]]
) -> dict[str, Any]:
    """Means with standard errors over rooms, also of the differences to float32 room by room."""
    rows, by_room = [], []
    for variant in results[0] if results else ():
        found = [room[variant] for room in results]
        usual = [room[Variant(FLOAT32, NOTHING, variant.interval)] for room in results]
        numbers = {name: [room[name] for room in found] for name in found[0]}
        for name, minus in (("ate_m", "ate_minus_m"), ("abs_rel", "abs_rel_minus")):
            numbers[minus] = [a[name] - b[name] for a, b in zip(found, usual, strict=True)]
        means = {name: mean(values) for name, values in numbers.items()}
        rows.append({**variant._asdict(), **means})
        by_room.append({**variant._asdict(), "rooms": found})
    return {"rows": rows, "by_room": by_room}


def follow_recorded(
    network: Network, images: Tensor, reset: Sequence[bool], update: Sequence[bool], how: Variant
) -> list[tuple[Prediction, RecurrentState]]:
    """Step over images [T, 3, H, W]; after some the state is reset, by some it is not changed.

    Returns:
        What is seen in each image, and the state after it, before it is reset.
    """
    state, found = network.initial_state(), []
    with torch.inference_mode(), computing(network, how.dtype, how.part):
        for image, ends, writes in zip(images, reset, update, strict=True):
            state, seen = network.step(state, image[None], bool(writes))
            found.append((seen, state))
            if ends:
                state = network.initial_state()
    return found


def compare_recorded(
    network: Network,
    images: Tensor,
    reset: Sequence[bool],
    update: Sequence[bool],
    options: Options,
) -> list[dict[str, Any]]:
    """Deviations from float32 on recorded images, means over them: a row for each variant."""
    plain = Variant(FLOAT32, NOTHING, 1)  # resets are recorded
    usual = follow_recorded(network, images, reset, update, plain)
    rows = []
    for variant in options.variants(plain.interval):
        found = follow_recorded(network, images, reset, update, variant)
        numbers: dict[str, list[float]] = defaultdict(list)
        for (seen, state), (usually_seen, usual_state) in zip(found, usual, strict=True):
            of_image = deviations(seen, usually_seen) | state_deviations(state, usual_state)
            for name, value in of_image.items():
                if name != "position_share":  # synthetic weights know no depth
                    numbers[name].append(float(value))
        means = {name: float(np.mean(values)) for name, values in numbers.items()}
        rows.append({"dtype": variant.dtype, "part": variant.part, **means})
    return rows


def golden_deviations(context: Context[Options]) -> dict[str, Any]:
    """The same on the recorded images of golden sets, with their weights; and the intervals."""
    recipe = runpy.run_path(str(GOLDEN / "recipe.py"))
    device, found = context.model.device, []
    for name in context.options.golden:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.pth"
            recipe["write_checkpoint"](str(GOLDEN / name / "set.json"), str(path))
            network = load_network(path, device=device)
        recorded = np.load(GOLDEN / name / "golden_ttt3r_f32.npz")
        images = np.load(GOLDEN / name / "inputs.npz")["images"][recorded["order"]]
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        how = (recorded["reset"], recorded["update"], context.options)
        rows = compare_recorded(network, pixels, *how)
        found += [{"set": name, "images": len(images), **row} for row in rows]
    return {"golden": found, "intervals": context.options.intervals_of(context.model)}


def markdown(report: dict[str, Any]) -> list[str]:
    """The tables, with what they were made with below."""
    lines = []
    nothing = (math.nan, math.nan)
    shown = [name for name in COLUMNS if name != "points"]
    for interval in report["intervals"] if report["rows"] else ():
        lines += table(
            ["dtype", "part", *(COLUMNS[name][0] for name in shown)],
            (
                [row["dtype"], row["part"], *(_cell(row.get(n, nothing), n) for n in shown)]
                for row in report["rows"]
                if row["interval"] == interval
            ),
            f"reset every {interval} images" if interval else "no resets",
        )
    if golden := report["golden"]:
        shown = [name for name in COLUMNS if name in golden[0]]
        lines += table(
            ["set", "dtype", "part", *(COLUMNS[name][0] for name in shown)],
            (
                [row["set"], row["dtype"], row["part"]]
                + [_cell((row[name], math.nan), name) for name in shown]
                for row in golden
            ),
            "Golden sets",
        )
    return [
        *lines,
        f"{report['rooms']} rooms, seeds from {report['first_seed']}, {report['plan']['images']} "
        f"images of each, {report['size']} at {RATE_HZ:g} Hz; means ± standard errors over rooms, "
        "of the golden sets over images. Position, rotation: within a segment; state, memory: "
        "relative norms at the end of segments, without resets after the last image. ATE after "
        "SE(3). " + harness.made_with(report),
    ]


def _cell(number: tuple[float, float], name: str) -> str:
    _, factor, decimals = COLUMNS[name]
    return cell(number, decimals, factor)


PROGRAM = harness.Evaluation(
    about=__doc__,
    options=Options,
    first_seed=FIRST_SEED,
    measure=evaluate_rooms,
    summarize=summarize,
    markdown=markdown,
    rooms=4,
    batch=4,
    dtype=FLOAT32,
    before=golden_deviations,
)

if __name__ == "__main__":
    harness.run(PROGRAM)
