# SPDX-License-Identifier: Apache-2.0
"""How often a lost camera is found again in a room, how well, and how often wrongly.

    python benchmarks/evaluate_relocalization.py --json relocalization.json

A robot drives once around each room, and keyframes are kept. Then single pictures are asked for:
of the second round, from beside the path, of other walls, and of other rooms. Limits are chosen on
`--first-seed 2400000`, figures are reported on the default seeds. Rooms, pictures and weights are
fixed, so the numbers can be had again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import harness, streams
from benchmarks.harness import Context, option, table
from benchmarks.streams import NOISE, RATE_HZ, BatchTracker, lengths, network_input
from ttt3r_ros.geometry import Transform, inverse, orthonormal
from ttt3r_ros.loading import Model
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.relocalization.keyframes import KeyframeStore, Novelty, describe
from ttt3r_ros.relocalization.relocalize import Evidence, Limits, Relocalization, attempts
from ttt3r_ros.simulation import add_noise

FIRST_SEED = 2_600_000  # training, choices and other reports use smaller ones
PLACES = {  # metres and degrees off the path
    "second round": (0.0, 0.0),
    "10 cm, 5°": (0.1, 5.0),
    "25 cm, 10°": (0.25, 10.0),
    "50 cm, 20°": (0.5, 20.0),
    "turned by 90°": (0.0, 90.0),
    "turned by 180°": (0.0, 180.0),
}
OTHER = "another room"
_RULE = "ttt3r"
_OTHER_ROOMS = 2  # whose stores are asked for each picture that is on the path or turned by 90°
_ASKED_OF_OTHERS = ("second round", "turned by 90°")
_RIGHT = (0.3, 10.0)  # metres and degrees; a pose that is no farther off is one to go on from
_WRONG = (0.5, 20.0)  # one that is farther off is of another place
_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Options:
    """What is evaluated."""

    loop: float = option(30.0, "length of a round [s]")
    capacity: int = option(64, "keyframes kept, at most")
    candidates: int = option(3, "keyframes tried")
    pictures: int = option(10, "asked for in each room and kind of place")


@dataclass(frozen=True, slots=True)
class Try:
    """One keyframe's answer."""

    evidence: Evidence
    error_m: float  # of the pose in the keyframe's camera; NaN in another room
    error_deg: float

    def within(self, limits: tuple[float, float]) -> bool:
        """Whether the pose is no farther off; false in another room."""
        return self.error_m <= limits[0] and self.error_deg <= limits[1]


@dataclass(frozen=True, slots=True)
class Question:
    """One picture and what was answered."""

    kind: str
    tries: list[Try]
    asked_ms: float

    def believed(self, limits: Limits) -> Try | None:
        """The answer that `relocalize` gives."""
        some = [t for t in self.tries if t.evidence.suffices(limits)]
        return max(some, key=lambda t: t.evidence.photometric_correlation, default=None)


class Studio(streams.Studio):
    """Some rooms with a camera on a closed path in each."""

    def __init__(self, seeds: Sequence[int], width: int, loop_s: float) -> None:
        """Build them for pictures of `width` times three quarters of that."""
        super().__init__(list(seeds), width, loop_s)
        self._generator = torch.Generator().manual_seed(seeds[0])

    def poses(self, t_s: float) -> Tensor:
        """T_world_camera, float64 [R, 4, 4]."""
        return self.path.pose(torch.tensor([t_s], dtype=torch.float64))[:, 0].double()

    def shoot(self, T_world_camera: Tensor) -> Tensor:
        """Take a picture in each room: uint8 [R, H, W, 3]."""
        rgb = self.render(T_world_camera[:, None].float())[0][:, 0]
        return (255 * add_noise(rgb, NOISE, self._generator).clamp(0, 1)).round().byte()


@torch.inference_mode()
def drive(
    options: Options, model: Model, studio: Studio
) -> tuple[list[KeyframeStore], list[Tensor]]:
    """Go around once, in all rooms together.

    Returns:
        The store of each room, and the true poses of all images, [R, 4, 4] each; a keyframe's
        stamp is the number of its image.
    """
    network, interval = model.network, model.reset_interval
    count = len(studio.rooms)
    stores = [KeyframeStore(options.capacity) for _ in range(count)]
    # Its segments are an image shorter than the tracker's; the figures were made so.
    tracker = BatchTracker(network, _RULE, interval, count, counts_shared=True)
    truth = []
    for number in range(round(options.loop * RATE_HZ)):
        truth.append(studio.poses(number / RATE_HZ))
        rgb = studio.shoot(truth[-1])
        features = network.encode(network_input(rgb, model.device))
        step = tracker.step(features)
        seen = step.prediction
        for room, store in enumerate(stores):
            store.offer(
                stamp_ns=number,
                segment=step.segment,
                state=_stream(step.state, room),
                scale=1.0,
                T_map_segment=step.T_first_segment[room].numpy(),
                T_map_camera=step.T_first_camera[room].numpy(),
                points=seen.points[room],
                confidence=seen.confidence[room],
                rgb=rgb[room].numpy(),
                intrinsics=studio.lens,
                median_confidence=float(seen.confidence[room].median()),
                descriptor=describe(features[room, None], network.config.enc_embed_dim),
            )
    return stores, truth


def _stream(state: RecurrentState, k: int) -> RecurrentState:
    return RecurrentState.from_tensors(
        {name: tensor[k : k + 1].clone() for name, tensor in state.to_tensors().items()}
    )


def beside(poses: Tensor, metres: float, degrees: float, generator: np.random.Generator) -> Tensor:
    """Poses [R, 4, 4] moved level in any direction and turned about the vertical to either side."""
    moved = poses.clone()
    for pose in moved:
        direction = generator.uniform(-np.pi, np.pi)
        angle = np.radians(degrees) * generator.choice((-1, 1))
        pose[:2, 3] += metres * torch.tensor((np.cos(direction), np.sin(direction)))
        cosine, sine = np.cos(angle), np.sin(angle)
        turn = pose.new_tensor(((cosine, -sine, 0), (sine, cosine, 0), (0, 0, 1)))
        pose[:3, :3] = turn @ pose[:3, :3]
    return moved


@dataclass(frozen=True, slots=True)
class Room:
    """What was kept of one room, and what was asked of it or with its pictures."""

    keyframes: int
    questions: list[Question]


@torch.inference_mode()
def evaluate_rooms(context: Context[Options], seeds: Sequence[int]) -> list[Room]:
    """Drive through some rooms, then ask."""
    options, model = context.options, context.model
    studio = Studio(seeds, model.image_size, options.loop)
    stores, truth = drive(options, model, studio)
    generator = np.random.default_rng(seeds[0])
    rooms = [Room(len(store), []) for store in stores]
    for kind, off in PLACES.items():
        for _ in range(options.pictures):
            poses = beside(studio.poses(generator.uniform(0, options.loop)), *off, generator)
            rgb = studio.shoot(poses)
            features = model.network.encode(network_input(rgb, model.device))
            for number, room in enumerate(rooms):
                asked = range(1 + (_OTHER_ROOMS if kind in _ASKED_OF_OTHERS else 0))
                for other in sorted({(number + step) % len(rooms) for step in asked}):
                    began_s = time.perf_counter()
                    answers = attempts(
                        model.network,
                        features[number, None],
                        rgb[number].numpy(),
                        studio.lens,
                        stores[other],
                        options.candidates,
                    )
                    asked_ms = 1e3 * (time.perf_counter() - began_s)
                    own = other == number
                    tries = []
                    for answer in answers:
                        errors = (np.nan, np.nan)
                        if own:
                            T_world_keyframe = truth[answer.keyframe.stamp_ns][number].numpy()
                            errors = pose_errors(answer, T_world_keyframe, poses[number].numpy())
                        tries.append(Try(answer.evidence, *errors))
                    room.questions.append(Question(kind if own else OTHER, tries, asked_ms))
    return rooms


def pose_errors(
    answer: Relocalization, T_world_keyframe: Transform, T_world_camera: Transform
) -> tuple[float, float]:
    """Errors of the pose in the keyframe's camera, metres and degrees: drift is not in them."""
    found = inverse(answer.keyframe.T_map_camera) @ answer.T_map_camera
    error = inverse(inverse(T_world_keyframe) @ T_world_camera) @ found
    return lengths(orthonormal(error))


def summarize(_: Context[Options], rooms: Sequence[Room]) -> dict[str, Any]:
    """The numbers of the tables, and all answers."""
    questions, limits = [question for room in rooms for question in room.questions], Limits()
    return {
        "limits": asdict(limits),
        "novelty": asdict(Novelty()),
        "keyframes": [room.keyframes for room in rooms],
        **summary_of(questions, limits),
        "questions": [asdict(question) for question in questions],
    }


def summary_of(questions: Sequence[Question], limits: Limits) -> dict[str, Any]:
    """Counts and errors by kind of place, and the evidence for right and wrong poses."""
    rows = {}
    for kind in (*PLACES, OTHER):
        some = [question for question in questions if question.kind == kind]
        believed = [t for question in some if (t := question.believed(limits))]
        possible = sum(any(t.within(_RIGHT) for t in question.tries) for question in some)
        rows[kind] = {
            "asked": len(some),
            "accepted": len(believed),
            "right": sum(t.within(_RIGHT) for t in believed),
            "wrong": sum(not t.within(_WRONG) for t in believed),
            "possible": possible,
            "error_m": _quantiles([t.error_m for t in believed], (0.5, 0.9)),
            "error_deg": _quantiles([t.error_deg for t in believed], (0.5, 0.9)),
        }
    evidence: dict[str, dict[str, Any]] = {}
    tries = [t for question in questions for t in question.tries]
    for name in ("photometric_correlation", "disagreement", "share_seen", "confidence"):
        for group, right in (("right", True), ("wrong", False)):
            values = [getattr(t.evidence, name) for t in tries if t.within(_RIGHT) == right]
            numbers = _quantiles([v for v in values if np.isfinite(v)], _QUANTILES)
            evidence.setdefault(name, {})[group] = {"tries": len(values), "quantiles": numbers}
    asked_ms = _quantiles([question.asked_ms for question in questions], (0.5, 0.95))
    return {"places": rows, "evidence": evidence, "asked_ms": asked_ms}


def _quantiles(values: Sequence[float], shares: Sequence[float]) -> list[float] | None:
    return np.quantile(values, shares).tolist() if values and np.isfinite(values).all() else None


def markdown(report: dict[str, Any]) -> list[str]:
    """The tables, with what they were made with below."""
    rows: list[list[object]] = []
    for kind, row in report["places"].items():
        share = row["accepted"] / max(1, row["asked"])
        accepted = f"{row['accepted']} ({share:.1%})"
        counts = [row["asked"], accepted, row["right"], row["wrong"], row["possible"]]
        errors = [_pair(row["error_m"], ".3f"), _pair(row["error_deg"], ".1f")]
        rows.append([kind, *counts, *errors])
    heads = ["picture", "asked", "accepted", "of these right", "wrong", "a right one was tried"]
    lines = table([*heads, "error [m], median and 90 %", "[°]"], rows)
    lines += table(
        ["evidence", "pose", "tries", *(f"{100 * q:g} %" for q in _QUANTILES)],
        (
            [name, group, row["tries"], *(f"{q:.3g}" for q in row["quantiles"] or [])]
            for name, groups in report["evidence"].items()
            for group, row in groups.items()
        ),
    )
    plan = report["plan"]
    return [
        *lines,
        f"{report['rooms']} rooms, seeds from {report['first_seed']}, {report['size']} at "
        f"{RATE_HZ:g} Hz, noise {NOISE:g}, one round of {plan['loop']:g} s, "
        f"{min(report['keyframes'])} to {max(report['keyframes'])} keyframes. Errors are those "
        f"of the pose in the keyframe's camera. Right: within {_RIGHT[0]:g} m and "
        f"{_RIGHT[1]:g}°; wrong: off by more than {_WRONG[0]:g} m or {_WRONG[1]:g}°, and all in "
        f"another room. {plan['candidates']} keyframes are tried, in "
        f"{report['asked_ms'][0]:.0f} ms (median; 95 %: {report['asked_ms'][1]:.0f} ms). "
        f"Limits {report['limits']}; novelty {report['novelty']}. " + harness.made_with(report),
    ]


def _pair(values: Sequence[float] | None, form: str) -> str:
    return "-" if values is None else ", ".join(format(value, form) for value in values)


PROGRAM = harness.Evaluation(
    about=__doc__,
    options=Options,
    first_seed=FIRST_SEED,
    measure=evaluate_rooms,
    summarize=summarize,
    markdown=markdown,
    rooms=20,
    batch=10,
)

if __name__ == "__main__":
    harness.run(PROGRAM)
