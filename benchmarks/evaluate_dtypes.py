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

import argparse
import json
import math
import runpy
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks.evaluate_demo_model import RATE_HZ, BatchTracker, Numbers, film, mean
from benchmarks.tf32_products import Tf32Products
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.network.checkpoint import load_network
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import LOWER, tf32_products
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState

FIRST_SEED = 2_700_000  # training, choices and other reports use smaller ones
GOLDEN = Path(__file__).resolve().parent.parent / "test" / "data" / "golden"
GOLDEN_SETS = ("A_dpt_landscape", "B_linear", "C_ttt3r_reset")
FLOAT32 = "float32"
TF32 = "tf32"
DTYPES = (TF32, "bfloat16", "float16")
PARTS = ("encoder", "decoders", "memory", "heads")
ALL, ALL_BUT_HEADS = "all", "all but heads"
CHOICES = (*PARTS, ALL_BUT_HEADS, ALL)
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
class Plan:
    """What is evaluated."""

    config: Config  # names the weights and the device
    images: int  # of each room
    dtypes: tuple[str, ...]
    parts: tuple[str, ...]  # without resets only those with more than one of PARTS
    intervals: tuple[int, ...]  # images in a segment; 0: never reset

    def variants(self, interval: int) -> list[Variant]:
        """Return what is compared with float32."""
        parts = [part for part in self.parts if interval or part not in PARTS]
        return [Variant(dtype, part, interval) for dtype in self.dtypes for part in parts]


def methods_of(network: Network, part: str) -> list[tuple[nn.Module, str]]:
    """The methods that make up a part of the network, each with its owner."""
    memory = network.pose_retriever
    methods: dict[str, list[tuple[nn.Module, str]]] = {
        "encoder": [(network, "encode")],
        "decoders": [(network, "decode")],
        "memory": [(memory, "appearance"), (memory, "read"), (memory, "write")],
        "heads": [(network, "predict")],
    }
    return [method for name in PARTS if covers(part, name) for method in methods[name]]


def covers(part: str, name: str) -> bool:
    """Whether what is switched as `part` has that one of the PARTS in it."""
    return part in (name, ALL) or (part == ALL_BUT_HEADS and name != "heads")


@contextmanager
def computing(network: Network, dtype: str, part: str) -> Iterator[None]:
    """While it lasts, a part of the network computes in a dtype and the rest in float32."""
    device_type = network.pose_token.device.type
    lower = LOWER.get(dtype)
    tf32 = dtype == TF32

    def switched(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            network.tf32 = tf32  # which `encode` looks at
            try:
                with (
                    tf32_products(tf32),
                    torch.autocast(device_type, lower, enabled=lower is not None),
                ):
                    return method(*args, **kwargs)
            finally:
                network.tf32 = False

        return call

    methods = methods_of(network, part)
    for owner, name in methods:
        setattr(owner, name, switched(getattr(owner, name)))
    try:
        with Tf32Products() if tf32 and device_type == "cpu" else nullcontext():
            yield
    finally:
        for owner, name in methods:
            delattr(owner, name)  # the class's own is behind it


class Stream(BatchTracker):
    """A tracker's segments for B rooms in one way to compute."""

    def __init__(self, network: Network, variant: Variant, batch: int) -> None:
        """Begin in front of the first images."""
        self.variant = variant
        super().__init__(network, "ttt3r", variant.interval, batch)

    def _begin(self) -> None:
        self._ended = getattr(self, "_state", None)  # none in front of the first images
        super()._begin()

    def follow(
        self, features: dict[str, Tensor]
    ) -> tuple[Tensor, Prediction, RecurrentState | None]:
        """Take one image's features, by the dtype of the encoder.

        Returns:
            The cameras in the frame of their streams' first ones, float64 [B, 4, 4], what the
            network said, and at the end of a segment its last state.

        Raises:
            ValueError: the network's answer is not finite.
        """
        dtype, part, _ = self.variant
        encoded = dtype if covers(part, "encoder") else FLOAT32
        self._ended = None
        with computing(self._network, dtype, part):
            try:
                T, prediction = self.step(features[encoded])
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                raise ValueError(f"{dtype}, {part}: the network's pose is not finite") from error
        return T, prediction, self._ended

    @property
    def state(self) -> RecurrentState:
        """The state after the last image."""
        return self._state


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
    plan: Plan, seeds: Sequence[int], model: Model
) -> dict[Variant, list[dict[str, float]]]:
    """Film rooms and follow the cameras in all ways of the plan, side by side.

    Returns:
        The numbers of each room, by variant; float32 is among them as the part "-".
    """
    network, batch, width = model.network, len(seeds), model.image_size
    streams = {
        interval: [
            Stream(network, variant, batch)
            for variant in (Variant(FLOAT32, NOTHING, interval), *plan.variants(interval))
        ]
        for interval in plan.intervals
    }
    records: dict[Variant, Record] = defaultdict(Record)
    true_poses = []
    shots = film(seeds, plan.images, width, 3 * width // 4, _SUPERSAMPLING)
    for rgb, true_m, T_world_camera in shots:
        true_poses.append(T_world_camera)
        pixels = rgb.permute(0, 3, 1, 2).to(model.device).float().div_(255).sub_(0.5).div_(0.5)
        features = {}
        for dtype in dict.fromkeys((FLOAT32, *plan.dtypes)):
            with computing(network, dtype, "encoder"):
                features[dtype] = network.encode(pixels)
        for interval, some in streams.items():
            answers = [stream.follow(features) for stream in some]
            _, usual, usual_end = answers[0]
            for stream, (T, seen, end) in zip(some, answers, strict=True):
                record = records[stream.variant]
                record.add_image(T, seen, usual, true_m)
                if interval and end and usual_end:
                    record.add(state_deviations(end, usual_end))
                elif not interval and len(true_poses) == plan.images:
                    record.add(state_deviations(stream.state, some[0].state))
    truth = torch.stack(true_poses, dim=1).numpy()
    return {variant: record.summary(truth) for variant, record in records.items()}


def summarize(rooms: dict[Variant, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Means with standard errors over rooms, also of the differences to float32 room by room."""
    rows = []
    for variant, found in rooms.items():
        usual = rooms[Variant(FLOAT32, NOTHING, variant.interval)]
        numbers = {name: [room[name] for room in found] for name in found[0]}
        for name, minus in (("ate_m", "ate_minus_m"), ("abs_rel", "abs_rel_minus")):
            numbers[minus] = [a[name] - b[name] for a, b in zip(found, usual, strict=True)]
        means = {name: mean(values) for name, values in numbers.items()}
        rows.append({**variant._asdict(), **means})
    return rows


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
    network: Network, images: Tensor, reset: Sequence[bool], update: Sequence[bool], plan: Plan
) -> list[dict[str, Any]]:
    """Deviations from float32 on recorded images, means over them: a row for each variant."""
    plain = Variant(FLOAT32, NOTHING, 1)  # resets are recorded
    usual = follow_recorded(network, images, reset, update, plain)
    rows = []
    for variant in plan.variants(plain.interval):
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


def golden_deviations(name: str, plan: Plan, device: torch.device) -> list[dict[str, Any]]:
    """The same on the recorded images of a golden set, with its weights."""
    recipe = runpy.run_path(str(GOLDEN / "recipe.py"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pth"
        recipe["write_checkpoint"](str(GOLDEN / name / "set.json"), str(path))
        network = load_network(path, device=device)
    recorded = np.load(GOLDEN / name / "golden_ttt3r_f32.npz")
    images = np.load(GOLDEN / name / "inputs.npz")["images"][recorded["order"]]
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    rows = compare_recorded(network, pixels, recorded["reset"], recorded["update"], plan)
    return [{"set": name, "images": len(images), **row} for row in rows]


def markdown(
    rows: Sequence[dict[str, Any]], golden: Sequence[dict[str, Any]], about: dict[str, Any]
) -> str:
    """The tables, with their run_metadata below."""
    lines = []
    plan = about["plan"]
    shown = [name for name in COLUMNS if name != "points"]
    for interval in plan["intervals"] if rows else ():
        title = f"reset every {interval} images" if interval else "no resets"
        lines += [f"**{title}**", "", *_head("dtype", "part", *(COLUMNS[n][0] for n in shown))]
        for row in rows:
            if row["interval"] == interval:
                cells = [_cell(row.get(name, (math.nan, math.nan)), name) for name in shown]
                lines.append(_line(row["dtype"], row["part"], *cells))
        lines.append("")
    if golden:
        shown = [name for name in COLUMNS if name in golden[0]]
        heads = [COLUMNS[name][0] for name in shown]
        lines += ["**Golden sets**", "", *_head("set", "dtype", "part", *heads)]
        for row in golden:
            cells = [_cell((row[name], math.nan), name) for name in shown]
            lines.append(_line(row["set"], row["dtype"], row["part"], *cells))
        lines.append("")
    lines.append(
        f"{about['rooms']} rooms, seeds from {about['first_seed']}, {plan['images']} images of "
        f"each, {about['size']} at {RATE_HZ:g} Hz; means ± standard errors over rooms, of the "
        "golden sets over images. Position, rotation: within a segment; state, memory: relative "
        "norms at the end of segments, without resets after the last image. ATE after SE(3). "
        f"Weights {about['checkpoint']['name']} (SHA-256 {about['checkpoint']['sha256']}). "
        f"{about['hardware']['gpu'] or about['hardware']['cpu']}, threads: "
        f"{about['hardware']['threads']}, {about['seconds']:.0f} s, "
        f"torch {about['versions']['torch']}, {about['date']}, commit {about['commit']}."
    )
    return "\n".join(lines)


def _line(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*heads: str) -> list[str]:
    return [_line(*heads), "|---" * len(heads) + "|"]


def _cell(number: tuple[float, float], name: str) -> str:
    _, factor, decimals = COLUMNS[name]
    value, error = (factor * x for x in number)
    if math.isnan(value):
        return "-"
    return f"{value:.{decimals}f}" + ("" if math.isnan(error) else f" ± {error:.{decimals}f}")


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=4, help="0: only the golden sets")
    add("--first-seed", type=int, default=FIRST_SEED)
    add("--images", type=int, default=1000, help="of each room")
    add("--batch", type=int, default=4, help="rooms stepped together")
    add("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, metavar="DTYPE")
    add("--parts", nargs="+", choices=CHOICES, default=CHOICES, metavar="PART")
    add(
        "--intervals",
        type=int,
        nargs="+",
        metavar="N",
        help="images in a segment, 0: no resets; default: as the weights recommend, and 0",
    )
    add("--golden", nargs="*", choices=GOLDEN_SETS, default=GOLDEN_SETS, metavar="SET")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)

    config = Config(
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        dtype=FLOAT32,
        process_all_images=True,
    )
    model = load_model(config)
    recommended = int(model.settings.get("segment.reset_interval", 0))
    plan = Plan(
        config=config,
        images=arguments.images,
        dtypes=tuple(dict.fromkeys(arguments.dtypes)),
        parts=tuple(dict.fromkeys(arguments.parts)),
        intervals=tuple(dict.fromkeys(arguments.intervals or (recommended, 0))),
    )
    began_s = time.perf_counter()
    rooms: dict[Variant, list[dict[str, float]]] = defaultdict(list)
    stop = arguments.first_seed + arguments.rooms
    for start in range(arguments.first_seed, stop, arguments.batch):
        seeds = range(start, min(start + arguments.batch, stop))
        for variant, found in evaluate_rooms(plan, seeds, model).items():
            rooms[variant] += found
        print(f"rooms to seed {seeds[-1]}", file=sys.stderr, flush=True)
    golden = [
        row for name in arguments.golden for row in golden_deviations(name, plan, model.device)
    ]
    rows = summarize(rooms)
    about = {
        "rooms": arguments.rooms,
        "first_seed": arguments.first_seed,
        "plan": asdict(plan),
        "size": f"{model.image_size}x{3 * model.image_size // 4}",
        "seconds": time.perf_counter() - began_s,
        **run_metadata.of_run(config, model.device),
    }
    print(markdown(rows, golden, about))
    if arguments.json:
        by_room = [{**variant._asdict(), "rooms": found} for variant, found in rooms.items()]
        content = {**about, "rows": rows, "golden": golden, "by_room": by_room}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
