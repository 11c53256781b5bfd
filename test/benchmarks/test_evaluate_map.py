# SPDX-License-Identifier: Apache-2.0
"""The table of maps, on a few images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import evaluate_map as subject
from benchmarks import harness
from benchmarks.harness import Context
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation.metrics.true_surface import SurfaceSamples
from ttt3r_ros.geometry import optical_extrinsics
from ttt3r_ros.mapping.voxel_map import VoxelMap

SEED = 950_000
SHORT = subject.Options(images=12, model_images=4, width=64)


def judged(options, seed):
    config = Config(device="cpu", process_all_images=True)
    return subject.judge_true_map(Context(config, options, seed, 1), seed)


def test_a_map_of_the_truth_is_near_the_truth():
    judgements = judged(SHORT, SEED)
    assert judgements.keys() == {subject.TRUE_MAP, subject.TRUE_MAP + subject.CARVED}
    for numbers in judgements.values():
        assert numbers["f_score_5cm"] > 0.99 and numbers["doubled"] == 0 and numbers["trail"] == 0


def test_a_map_of_wrong_poses_is_found_out():
    """The same images, every second one 20 cm beside its place."""
    studio, samples = subject.Studio(SEED, SHORT, 12), SurfaceSamples()
    voxels = VoxelMap(0.05, 100_000, "cpu")
    for number, shot in enumerate(studio.film(12)):
        seen, _ = studio.points(shot)
        samples.add(seen)
        points = torch.from_numpy(seen).float()
        points[:, 1] += 0.2 * (number % 2)
        voxels.insert(points, torch.zeros(len(points), 3), torch.ones(len(points)))
    points = voxels.cloud().points.astype(np.float64)
    numbers = studio.judge(points, samples)
    assert numbers["recall_5cm"] > 0.99 and numbers["f_score_5cm"] < 0.9
    assert numbers["doubled"] > 0.1 and studio.trail(points, 11, 0.05) > 100


def test_what_moves_is_gone_in_the_last_round():
    plan = replace(SHORT, moving=4, loop=0.6)  # 6 images
    assert [plan.staying(images) for images in (7, 12, 30)] == [3, 6, 24]
    with_things, without = subject.Studio(SEED, plan, 12), subject.Studio(SEED, SHORT, 12)
    assert with_things.staying == 6
    numbers = torch.tensor([5, 6])
    there, gone = with_things.rooms_at(numbers).solid_centre
    still = without.room.solid_centre[0]
    moved = (there != still).any(dim=1)
    assert moved.sum() == 4
    assert torch.equal(gone[~moved], still[~moved]) and (gone[moved] > 100).all()
    shots = [with_things.points(shot)[0] for shot in with_things.film(12)]
    assert max(with_things.distance(points).max() for points in shots[6:]) < 1e-3


def test_trails_are_what_is_far_from_the_room_and_from_what_is_there():
    studio = subject.Studio(SEED, replace(SHORT, moving=1), 12)
    solid = (studio.room.solid_centre[0] > 100).any(dim=1)
    middle = studio.rooms_at(torch.tensor([0])).solid_centre[0, solid].double().numpy()
    floor = middle * (1, 1, 0)
    above = np.array([[0.65], [0.75]]) * (0, 0, 1)
    points = np.vstack((middle, middle + above, floor))
    assert 0.15 <= middle[0, 2] <= 0.28  # a ball that lies on the floor: its radius
    assert studio.trail(points, 0, 0.05) == 3
    assert studio.trail(middle, 11, 0.05) == 1 and studio.trail(floor, 11, 0.05) == 0


def test_moving_things_leave_a_trail_that_is_carved():
    """Two rounds of 6 s; things move in the first one."""
    plan = replace(SHORT, images=120, loop=6.0, moving=4)
    uncarved, carved = judged(plan, SEED + 1).values()
    assert uncarved["trail"] > 1000 and uncarved["f_score_5cm"] < 0.98
    assert carved["trail"] < 0.02 * uncarved["trail"] and carved["f_score_5cm"] > 0.99
    assert carved["trail"] < carved["trail_moving"] < uncarved["trail_moving"]


def test_a_similarity_is_found_again():
    T = optical_extrinsics((1.0, 2.0, 0.5, 0.1, 0.2, 0.3))
    T[:3, :3] *= 1.7
    positions = np.random.default_rng(0).normal(size=(20, 3)) * (1, 1, 0.01)  # nearly level
    found = subject.similarity(positions, positions @ T[:3, :3].T + T[:3, 3])
    np.testing.assert_allclose(found, T, atol=1e-9)


def test_the_command_prints_a_table_and_writes_every_number(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    words = ["--device", "cpu", "--rooms", "2", "--first-seed", str(SEED), "--width", "64"]
    harness.run(
        subject.PROGRAM, [*words, "--images", "4", "--model-images", "3", "--json", str(file)]
    )
    text, numbers = capsys.readouterr().out, json.loads(file.read_text())
    assert len(numbers["by_room"]) == 2
    kinds = {subject.TRUE_MAP: 4, subject.FIRST_POSE: 3, subject.BEST_FIT: 3}
    kinds[subject.TRUE_POSES] = 3
    kinds |= {kind + subject.CARVED: images for kind, images in kinds.items()}
    assert numbers["summary"].keys() == kinds.keys()
    for kind, images in kinds.items():
        mean = numbers["summary"][kind]["accuracy_m"][0]
        assert f"| {kind} | {images} | {100 * mean:.2f} ± " in text
    for room in numbers["by_room"]:
        one = subject.TRUE_POSES
        trails = room[one + subject.CARVED]["trail"], room[one]["trail"]
        assert trails[1] > 0 and room[one + subject.CARVED]["trail_kept"] == trails[0] / trails[1]
        for kind in (subject.BEST_FIT, subject.BEST_FIT + subject.CARVED):
            del room[kind]  # of three positions on a line: anything
        for errors in room.values():
            assert 0 <= errors["doubled"] <= 1 and 0 <= errors["off_surface"] <= 1
    assert f"commit {numbers['commit']}" in text


def test_a_part_may_be_left_out_but_not_both(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    words = ["--first-seed", str(SEED), "--width", "64", "--images", "2", "--model-images", "0"]
    harness.run(subject.PROGRAM, [*words, "--json", str(file)])
    assert json.loads(file.read_text())["summary"].keys() == {
        subject.TRUE_MAP,
        subject.TRUE_MAP + subject.CARVED,
    }
    with pytest.raises(SystemExit):
        harness.run(subject.PROGRAM, ["--images", "0", "--model-images", "0"])
    assert "both are 0" in capsys.readouterr().err
