# SPDX-License-Identifier: Apache-2.0
"""How often a lost camera is found again in a room, how well, and how often wrongly.

    python benchmarks/evaluate_relocalization.py --json relocalization.json

A robot drives once around each room, and keyframes are kept. Then single pictures are asked for:
of the second round, from beside the path, of other walls, and of other rooms. Limits are chosen on
`--first-seed 2400000`, figures are reported on the default seeds. Rooms, pictures and weights are
fixed, so the numbers can be had again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.geometry import Intrinsics, Transform, inverse, orthonormal, rotation_vector
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.relocalization.keyframes import KeyframeStore, Novelty, describe
from ttt3r_ros.relocalization.relocalize import Evidence, Limits, Relocalization, attempts
from ttt3r_ros.simulation import Rooms, Trajectory, add_noise, make_rooms, make_trajectory, render

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
_OTHER_ROOMS = 2  # whose stores are asked for each picture that is on the path or turned by 90°
_ASKED_OF_OTHERS = ("second round", "turned by 90°")
_RATE_HZ = 10.0
_FOCAL_SHARE = 0.75  # of the width
_NOISE = 0.01  # of the camera, colours being 0 to 1
_RIGHT = (0.3, 10.0)  # metres and degrees; a pose that is no farther off is one to go on from
_WRONG = (0.5, 20.0)  # one that is farther off is of another place
_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated."""

    config: Config  # names the weights and the device
    loop_s: float = 30.0
    capacity: int = 64
    candidates: int = 3
    pictures: int = 10  # asked for in each room and at each kind of place


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


class Studio:
    """Some rooms with a camera on a closed path in each."""

    def __init__(self, seeds: Sequence[int], width: int, loop_s: float) -> None:
        """Build them for pictures of `width` times three quarters of that."""
        self.rooms: Rooms = make_rooms(list(seeds))
        self.path: Trajectory = make_trajectory(list(seeds), self.rooms, loop_s=loop_s)
        height, focal = 3 * width // 4, _FOCAL_SHARE * width
        self.lens = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
        self._generator = torch.Generator().manual_seed(seeds[0])

    def poses(self, t_s: float) -> Tensor:
        """T_world_camera, float64 [R, 4, 4]."""
        return self.path.pose(torch.tensor([t_s], dtype=torch.float64))[:, 0].double()

    def shoot(self, T_world_camera: Tensor) -> Tensor:
        """Take a picture in each room: uint8 [R, H, W, 3]."""
        lens = self.lens
        pinhole = (lens.fx, lens.fy, lens.cx, lens.cy)
        rgb = render(
            self.rooms, T_world_camera[:, None].float(), pinhole, lens.height, lens.width
        ).rgb[:, 0]
        return (255 * add_noise(rgb, _NOISE, self._generator).clamp(0, 1)).round().byte()


@torch.inference_mode()
def drive(plan: Plan, model: Model, studio: Studio) -> tuple[list[KeyframeStore], list[Tensor]]:
    """Go around once, in all rooms together, with segments as the tracker's.

    Returns:
        The store of each room, and the true poses of all images, [R, 4, 4] each; a keyframe's
        stamp is the number of its image.
    """
    network, interval = model.network, int(model.settings.get("segment.reset_interval", 0))
    count = len(studio.rooms)
    stores = [KeyframeStore(plan.capacity) for _ in range(count)]
    state, in_segment, segment = network.initial_state(count), 0, 0
    T_map_segment = [np.eye(4)] * count
    truth = []
    for number in range(round(plan.loop_s * _RATE_HZ)):
        truth.append(studio.poses(number / _RATE_HZ))
        rgb = studio.shoot(truth[-1])
        features = network.encode(_input(rgb, model.device))
        state, prediction = network.advance(state, features)
        in_segment += 1
        T_segment_camera = [orthonormal(T) for T in prediction.pose_matrix.double().cpu().numpy()]
        T_map_camera = [a @ b for a, b in zip(T_map_segment, T_segment_camera, strict=True)]
        for room, store in enumerate(stores):
            store.offer(
                stamp_ns=number,
                segment=segment,
                state=_stream(state, room),
                scale=1.0,
                T_map_segment=T_map_segment[room],
                T_map_camera=T_map_camera[room],
                points=prediction.points[room],
                confidence=prediction.confidence[room],
                rgb=rgb[room].numpy(),
                intrinsics=studio.lens,
                median_confidence=float(prediction.confidence[room].median()),
                descriptor=describe(features[room, None], network.config.enc_embed_dim),
            )
        if in_segment == interval:
            state, prediction = network.advance(network.initial_state(count), features)
            in_segment, segment = 1, segment + 1
            T_segment_camera = [
                orthonormal(T) for T in prediction.pose_matrix.double().cpu().numpy()
            ]
            T_map_segment = [
                a @ inverse(b) for a, b in zip(T_map_camera, T_segment_camera, strict=True)
            ]
    return stores, truth


def _input(rgb: Tensor, device: torch.device) -> Tensor:
    """Pictures uint8 [B, H, W, 3] as the network's images [B, 3, H, W]."""
    return rgb.permute(0, 3, 1, 2).to(device).float().div_(255).sub_(0.5).div_(0.5)


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


@torch.inference_mode()
def evaluate_rooms(
    plan: Plan, model: Model, seeds: Sequence[int]
) -> tuple[list[int], list[Question]]:
    """Drive through some rooms, then ask.

    Returns:
        The number of keyframes of each room, and the answers.
    """
    studio = Studio(seeds, model.image_size, plan.loop_s)
    stores, truth = drive(plan, model, studio)
    generator = np.random.default_rng(seeds[0])
    questions = []
    for kind, off in PLACES.items():
        for _ in range(plan.pictures):
            poses = beside(studio.poses(generator.uniform(0, plan.loop_s)), *off, generator)
            rgb = studio.shoot(poses)
            features = model.network.encode(_input(rgb, model.device))
            for room in range(len(seeds)):
                asked = range(1 + (_OTHER_ROOMS if kind in _ASKED_OF_OTHERS else 0))
                for other in sorted({(room + step) % len(seeds) for step in asked}):
                    began_s = time.perf_counter()
                    answers = attempts(
                        model.network,
                        features[room, None],
                        rgb[room].numpy(),
                        studio.lens,
                        stores[other],
                        plan.candidates,
                    )
                    asked_ms = 1e3 * (time.perf_counter() - began_s)
                    own = other == room
                    tries = [
                        Try(
                            answer.evidence,
                            *(
                                _errors(
                                    answer,
                                    truth[answer.keyframe.stamp_ns][room].numpy(),
                                    poses[room].numpy(),
                                )
                                if own
                                else (np.nan, np.nan)
                            ),
                        )
                        for answer in answers
                    ]
                    questions.append(Question(kind if own else OTHER, tries, asked_ms))
    return [len(store) for store in stores], questions


def _errors(
    answer: Relocalization, T_world_keyframe: Transform, T_world_camera: Transform
) -> tuple[float, float]:
    """Errors of the pose in the keyframe's camera, metres and degrees: drift is not in them."""
    found = inverse(answer.keyframe.T_map_camera) @ answer.T_map_camera
    error = inverse(inverse(T_world_keyframe) @ T_world_camera) @ found
    angle = float(np.linalg.norm(rotation_vector(orthonormal(error))))
    return float(np.linalg.norm(error[:3, 3])), float(np.degrees(angle))


def summarize(questions: Sequence[Question], limits: Limits) -> dict[str, Any]:
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


def markdown(summary: dict[str, Any], about: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        "| picture | asked | accepted | of these right | wrong | a right one was tried | "
        "error [m], median and 90 % | [°] |",
        "|---" * 8 + "|",
    ]
    for kind, row in summary["places"].items():
        share = row["accepted"] / max(1, row["asked"])
        lines.append(
            f"| {kind} | {row['asked']} | {row['accepted']} ({share:.1%}) | {row['right']} | "
            f"{row['wrong']} | {row['possible']} | {_pair(row['error_m'], '.3f')} | "
            f"{_pair(row['error_deg'], '.1f')} |"
        )
    heads = " | ".join(f"{100 * q:g} %" for q in _QUANTILES)
    lines += ["", f"| evidence | pose | tries | {heads} |", "|---" * (3 + len(_QUANTILES)) + "|"]
    for name, groups in summary["evidence"].items():
        for group, row in groups.items():
            cells = " | ".join(f"{q:.3g}" for q in row["quantiles"] or [])
            lines.append(f"| {name} | {group} | {row['tries']} | {cells} |")
    plan = about["plan"]
    lines += [
        "",
        f"{about['rooms']} rooms, seeds from {about['first_seed']}, {about['size']} at "
        f"{_RATE_HZ:g} Hz, noise {_NOISE:g}, one round of {plan['loop_s']:g} s, "
        f"{min(about['keyframes'])} to {max(about['keyframes'])} keyframes. Errors are those of "
        "the pose in the keyframe's camera. Right: within "
        f"{_RIGHT[0]:g} m and {_RIGHT[1]:g}°; wrong: off by more than {_WRONG[0]:g} m or "
        f"{_WRONG[1]:g}°, and all in another room. {plan['candidates']} keyframes are tried, in "
        f"{summary['asked_ms'][0]:.0f} ms (median; 95 %: {summary['asked_ms'][1]:.0f} ms). "
        f"Limits {about['limits']}; novelty {about['novelty']}. "
        f"Weights {about['checkpoint']['name']} (SHA-256 {about['checkpoint']['sha256']}). "
        f"{about['hardware']['gpu'] or about['hardware']['cpu']}, threads: "
        f"{about['hardware']['threads']}, {about['seconds']:.0f} s, "
        f"torch {about['versions']['torch']}, {about['date']}, commit {about['commit']}.",
    ]
    return "\n".join(lines)


def _pair(values: Sequence[float] | None, form: str) -> str:
    return "-" if values is None else ", ".join(format(value, form) for value in values)


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=20)
    add("--first-seed", type=int, default=FIRST_SEED)
    add("--batch", type=int, default=10, help="rooms driven through together, at least 3")
    add("--pictures", type=int, default=10, help="asked for in each room and kind of place")
    add("--candidates", type=int, default=3, help="keyframes tried")
    add("--loop", type=float, default=30.0, help="length of a round [s]")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)

    config = Config(
        checkpoint=arguments.checkpoint, device=arguments.device, process_all_images=True
    )
    plan = Plan(
        config, arguments.loop, candidates=arguments.candidates, pictures=arguments.pictures
    )
    model = load_model(config)
    limits = Limits()
    began_s = time.perf_counter()
    keyframes: list[int] = []
    questions: list[Question] = []
    for seeds in _batches(arguments.first_seed, arguments.rooms, arguments.batch):
        counts, answers = evaluate_rooms(plan, model, seeds)
        keyframes += counts
        questions += answers
        print(f"{len(keyframes)} of {arguments.rooms} rooms", file=sys.stderr, flush=True)
    summary = summarize(questions, limits)
    about = {
        "rooms": arguments.rooms,
        "first_seed": arguments.first_seed,
        "size": f"{model.image_size}x{3 * model.image_size // 4}",
        "plan": asdict(plan),
        "limits": asdict(limits),
        "novelty": asdict(Novelty()),
        "keyframes": keyframes,
        "seconds": time.perf_counter() - began_s,
        **run_metadata.of_run(config, model.device),
    }
    print(markdown(summary, about))
    if arguments.json:
        content = {**about, **summary, "questions": [asdict(question) for question in questions]}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _batches(first: int, rooms: int, batch: int) -> Iterator[range]:
    for start in range(first, first + rooms, batch):
        yield range(start, min(start + batch, first + rooms))


if __name__ == "__main__":
    main()
