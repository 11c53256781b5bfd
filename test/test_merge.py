# SPDX-License-Identifier: Apache-2.0
"""`ttt3r merge`: two folders become one, or nothing is written and the reason is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driven_stream import SURE, UNSURE
from small_network import small_checkpoint
from tolerant import TOLERANT
from tracked_frames import CONFIG, frames, pipeline

from ttt3r_ros.cli import main
from ttt3r_ros.config import with_values
from ttt3r_ros.geometry import Intrinsics, inverse, optical_extrinsics
from ttt3r_ros.merge import merge
from ttt3r_ros.pose_graph import joining
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.relocalize import Relocalization
from ttt3r_ros.session import Session, load_session, made_for, save_session

CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
IMAGES = 14
SETTINGS = {**TOLERANT, "segment.reset_interval": 4}
LATER_NS = 10**12


@dataclass(frozen=True)
class Two:
    """Sessions of the same pictures, of which the second map begins elsewhere and turned."""

    first: Path
    second: Path
    T_first_second: np.ndarray

    def merge(self, output: Path, **values: Any) -> Session:
        config = with_values(CONFIG, values)
        merge(self.first, self.second, output, config)
        return read(output)


def read(folder: Path) -> Session:
    subject = pipeline()
    state = subject.model.network.initial_state()
    return load_session(folder, made_for(CONFIG, subject.model.image_size), state, 0.05)


def session(folder: Path, T_odom_camera: np.ndarray, first_ns: int) -> Path:
    subject = pipeline(**SETTINGS)
    subject.place_first_camera(T_odom_camera)
    for frame in frames(IMAGES):
        subject.process(replace(frame, intrinsics=CAMERA, stamp_ns=first_ns + frame.stamp_ns))
    save_session(folder, subject.session(), made_for(CONFIG, subject.model.image_size))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Two:
    folder = tmp_path_factory.mktemp("sessions")
    here, there = optical_extrinsics(), optical_extrinsics((30, 2, 3, 0.1, 0.2, 2.3))
    first, second = session(folder / "a", here, 0), session(folder / "b", there, LATER_NS)
    return Two(first, second, here @ inverse(there))


@pytest.fixture
def two(made, tmp_path) -> Two:
    """A copy that may be damaged."""
    names = {"first": made.first, "second": made.second}
    copies = {k: Path(shutil.copytree(v, tmp_path / v.name)) for k, v in names.items()}
    return replace(made, **copies)


@pytest.fixture
def same_pictures_are_recognized(monkeypatch) -> None:
    def attempts(
        network: Any, features: Any, rgb: Any, lens: Any, tried: Sequence[Keyframe]
    ) -> list[Relocalization]:
        return [
            Relocalization(
                *(k, k.state, None, 2.0, k.T_map_camera, np.eye(4), np.eye(4)),
                SURE if np.array_equal(k.picture, rgb) else UNSURE,
            )
            for k in tried
        ]

    monkeypatch.setattr(joining, "attempts_with", attempts)


@pytest.mark.usefixtures("same_pictures_are_recognized")
def test_maps_paths_and_keyframes_lie_on_each_other_in_the_first_ones_frame(two, tmp_path) -> None:
    merged = two.merge(tmp_path / "c")
    first, second = read(two.first), read(two.second)
    assert [stamp for stamp, _ in merged.trajectory] == [
        stamp for part in (first, second) for stamp, _ in part.trajectory
    ]
    for (_, here), (_, there) in zip(
        merged.trajectory[:IMAGES], merged.trajectory[IMAGES:], strict=True
    ):
        np.testing.assert_allclose(here, there, atol=1e-3)
    np.testing.assert_allclose(merged.trajectory[0][1], first.trajectory[0][1], atol=1e-6)
    nodes = len(first.loops.graph)
    assert merged.loops.graph.segments == tuple(range(-2 * nodes, 0))
    assert {*merged.path_segments[:IMAGES]} == {*range(-2 * nodes, -nodes)}
    voxels = merged.map_tensors
    apart = len(first.map_tensors["key"]) + len(second.map_tensors["key"])
    assert len(first.map_tensors["key"]) <= len(voxels["key"]) < 0.8 * apart
    assert int(voxels["images"]) == 2 * IMAGES
    assert voxels["hits"].max() > max(s.map_tensors["hits"].max() for s in (first, second))


@pytest.mark.usefixtures("same_pictures_are_recognized")
def test_what_was_merged_is_a_session_like_others(two, tmp_path) -> None:
    merged = two.merge(tmp_path / "c")
    subject = pipeline(**SETTINGS, session=str(tmp_path / "c"))
    assert len(subject.map) == len(merged.map_tensors["key"])
    subject.set_pose(optical_extrinsics(), np.eye(6))
    for frame in frames(6):
        subject.process(replace(frame, intrinsics=CAMERA, stamp_ns=2 * LATER_NS + frame.stamp_ns))
    assert len(subject.trajectory()) == 2 * IMAGES + 6


@pytest.mark.usefixtures("same_pictures_are_recognized")
def test_what_is_kept_is_bounded(two, tmp_path) -> None:
    bounds = {"recovery.keyframes": 5, "map.max_points": 4000, "loop.max_segments": 3}
    merged = two.merge(tmp_path / "c", **bounds)
    assert len(merged.keyframes) == 5 and len(merged.map_tensors["key"]) <= 4000
    assert len(merged.loops.graph) == 3
    # Of both, and a session that holds together: else it could not have been read.
    stamps = [keyframe.stamp_ns for keyframe in merged.keyframes]
    assert min(stamps) < LATER_NS <= max(stamps)


@pytest.mark.usefixtures("same_pictures_are_recognized")
def test_the_command_says_what_ties_them(two, tmp_path, capsys) -> None:
    output = tmp_path / "c"
    words = ["merge", str(two.first), str(two.second), "--output", str(output)]
    assert main([*words, "--checkpoint", small_checkpoint(), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert f"tie {two.second} to {two.first}" in said and f"voxels in {output}" in said
    assert len(read(output).trajectory) == 2 * IMAGES


@pytest.mark.usefixtures("same_pictures_are_recognized")
def test_a_session_may_take_the_place_of_one_that_it_was_made_of(two) -> None:
    two.merge(two.first)
    assert len(read(two.first).trajectory) == 2 * IMAGES


def cut(two: Two) -> None:
    path = two.second / "keyframes.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def of_other_weights(two: Two) -> None:
    about = json.loads((two.second / "session.json").read_text())
    about["made_for"]["checkpoint_sha256"] = "0" * 64
    (two.second / "session.json").write_text(json.dumps(about))


def missing(two: Two) -> None:
    shutil.rmtree(two.first)


def nothing(two: Two) -> None:
    pass


def refused(two: Two, output: Path, capsys, *more: str) -> str:
    """What the command says in one line, having written nothing."""
    before = sorted(two.first.parent.rglob("*"))
    words = ["merge", str(two.first), str(two.second), "--output", str(output)]
    words += ["--checkpoint", small_checkpoint(), "--device", "cpu", *more]
    assert main(words) == 2
    assert sorted(two.first.parent.rglob("*")) == before
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("ttt3r: ")
    return lines[-1]


@pytest.mark.parametrize(
    ("damage", "more", "message"),
    [
        (cut, (), "b: damaged session: keyframes.safetensors"),
        (missing, (), "a: no session"),
        (of_other_weights, (), "b: checkpoint_sha256: must be"),
        (nothing, ("--map.voxel-size-m", "0.1"), "a: map.voxel_size_m: must be 0.05"),
        (nothing, ("--update-rule", "cut3r"), "a: update_rule: must be 'cut3r'"),
        (nothing, (), "no place of"),  # random weights recognize nothing
    ],
)
def test_what_cannot_be_merged_is_said_and_nothing_is_written(
    two, tmp_path, capsys, damage, more, message
) -> None:
    damage(two)
    assert message in refused(two, tmp_path / "c", capsys, *more)


def test_what_is_no_session_is_not_replaced_and_that_is_said_first(two, tmp_path, capsys) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    missing(two)
    assert "mine: exists and is no session" in refused(two, mine, capsys)
    assert "the folder" in refused(two, tmp_path / "no" / "c", capsys)
