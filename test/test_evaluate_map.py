# SPDX-License-Identifier: Apache-2.0
"""The table of maps, on a few images."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from benchmarks import evaluate_map as subject
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation.map_metrics import map_errors
from ttt3r_ros.evaluation.true_surface import SurfaceSamples
from ttt3r_ros.geometry import optical_mount
from ttt3r_ros.mapping.voxel_map import VoxelMap

SEED = 950_000
SHORT = subject.Plan(Config(device="cpu", every_frame=True), images=12, model_images=4, width=64)


def test_a_map_of_the_truth_is_near_the_truth():
    errors = subject.judge_true_map(SHORT, SEED)
    assert errors.scores[0].f_score > 0.99 and errors.doubled == 0


def test_a_map_of_wrong_poses_is_found_out():
    """The same images, every second one 20 cm beside its place."""
    studio, samples = subject.Studio(SEED, 64, 60.0), SurfaceSamples()
    voxels = VoxelMap(0.05, 100_000, "cpu")
    for number, shot in enumerate(studio.film(12)):
        samples.add(shot.points)
        points = torch.from_numpy(shot.points).float()
        points[:, 1] += 0.2 * (number % 2)
        voxels.insert(points, torch.zeros(len(points), 3), torch.ones(len(points)))
    points = voxels.cloud().points.astype(np.float64)
    truth = subject.surface_of_room(studio.rooms, samples)
    distances = subject.room_distance(studio.rooms, points)
    errors = map_errors(points, truth, distances_m=distances)
    assert errors.scores[0].recall > 0.99 and errors.scores[0].f_score < 0.9
    assert errors.doubled > 0.1


def test_a_similarity_is_found_again():
    T = optical_mount((1.0, 2.0, 0.5, 0.1, 0.2, 0.3))
    T[:3, :3] *= 1.7
    positions = np.random.default_rng(0).normal(size=(20, 3)) * (1, 1, 0.01)  # nearly level
    found = subject.similarity(positions, positions @ T[:3, :3].T + T[:3, 3])
    np.testing.assert_allclose(found, T, atol=1e-9)


def test_films_are_the_same_at_every_length():
    long, short = (list(subject.Studio(SEED, 64, 60.0).film(n)) for n in (6, 3))
    for one, other in zip(long, short, strict=False):
        np.testing.assert_allclose(one.points, other.points, atol=1e-5)
        np.testing.assert_array_equal(one.T_world_camera, other.T_world_camera)


def test_means_are_those_over_rooms():
    rooms = [{"map": {"accuracy_m": value}} for value in (1.0, 3.0)]
    assert subject.summarize(rooms)["map"]["accuracy_m"] == [2.0, pytest.approx(1.0)]
    mean, spread = subject.summarize(rooms[:1])["map"]["accuracy_m"]
    assert mean == 1 and math.isnan(spread)
    rooms.append({"map": {"accuracy_m": math.nan}})  # has no such number
    assert subject.summarize(rooms)["map"]["accuracy_m"] == [2.0, pytest.approx(1.0)]


def test_the_command_prints_a_table_and_writes_every_number(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    words = ["--device", "cpu", "--rooms", "2", "--first-seed", str(SEED), "--width", "64"]
    subject.main([*words, "--images", "4", "--model-images", "3", "--json", str(file)])
    text, numbers = capsys.readouterr().out, json.loads(file.read_text())
    assert len(numbers["by_room"]) == 2
    kinds = {subject.TRUE_MAP: 4, subject.FIRST_POSE: 3, subject.BEST_FIT: 3}
    kinds[subject.TRUE_POSES] = 3
    assert numbers["summary"].keys() == kinds.keys()
    for kind, images in kinds.items():
        mean = numbers["summary"][kind]["accuracy_m"][0]
        assert f"| {kind} | {images} | {100 * mean:.2f} ± " in text
    for room in numbers["by_room"]:
        del room[subject.BEST_FIT]  # of three positions on a line: anything
        for errors in room.values():
            assert 0 <= errors["doubled"] <= 1 and 0 <= errors["off_surface"] <= 1
    assert f"commit {numbers['commit']}" in text


def test_a_part_may_be_left_out_but_not_both(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    words = ["--first-seed", str(SEED), "--width", "64", "--images", "2", "--model-images", "0"]
    subject.main([*words, "--json", str(file)])
    assert json.loads(file.read_text())["summary"].keys() == {subject.TRUE_MAP}
    with pytest.raises(SystemExit):
        subject.main(["--images", "0", "--model-images", "0"])
    assert "both are 0" in capsys.readouterr().err
