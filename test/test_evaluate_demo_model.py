# SPDX-License-Identifier: Apache-2.0
"""The table of the demo model's errors, on random weights and a few images."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_network import small_checkpoint

from benchmarks import evaluate_demo_model as subject
from ttt3r_ros.config import Config, with_values
from ttt3r_ros.evaluation.depth_metrics import depth_errors
from ttt3r_ros.evaluation.trajectory_metrics import trajectory_errors
from ttt3r_ros.geometry import inverse, optical_mount
from ttt3r_ros.model import load_model
from ttt3r_ros.simulation import make_rooms, make_trajectory, render
from ttt3r_ros.tracker import Tracker
from ttt3r_ros.types import Frame

CONFIG = Config(checkpoint=small_checkpoint(), device="cpu", every_frame=True)
SEEDS = [subject.FIRST_SEED, subject.FIRST_SEED + 1]
LENGTHS, INTERVALS = (4, 7), (0, 3)
PLAN = subject.Plan(CONFIG, LENGTHS, INTERVALS, gain_interval=3, supersampling=1)


@pytest.fixture(scope="module")
def model():
    return load_model(CONFIG)


@pytest.fixture(scope="module")
def results(model):
    return subject.evaluate_rooms(PLAN, SEEDS, model)


def filmed(seed):
    """The images, depths and poses of one room."""
    rooms = make_rooms(seed)
    poses = make_trajectory(seed, rooms).pose(torch.arange(7, dtype=torch.float64) / 10)
    rgb, depth = render(rooms, poses, (96.0, 96.0, 63.5, 47.5), 96, 128)
    frames = [
        Frame(i * 100_000_000, (255 * picture).round().byte().numpy())
        for i, picture in enumerate(rgb[0])
    ]
    return frames, depth[0].numpy(), poses[0].double().numpy()


@pytest.mark.parametrize("rule", subject.RULES)
@pytest.mark.parametrize("interval", INTERVALS)
def test_several_rooms_at_once_get_the_poses_of_the_tracker_and_its_depth(model, rule, interval):
    films = [filmed(seed)[0] for seed in SEEDS]
    batch = subject.BatchTracker(model.network, rule, interval, len(SEEDS))
    found = []
    with torch.inference_mode():
        for pair in zip(*films, strict=True):
            pixels = torch.from_numpy(np.stack([frame.rgb for frame in pair])).permute(0, 3, 1, 2)
            features = model.network.encode((pixels.float() / 255 - 0.5) / 0.5)
            found.append(batch.step(features))
    values = {"update_rule": rule, "segment.reset_interval": interval}
    config = with_values(CONFIG, values)
    for room, film in enumerate(films):
        tracker = Tracker(load_model(config), config)
        for frame, (poses, prediction) in zip(film, found, strict=True):
            result = tracker.step(frame)
            np.testing.assert_allclose(
                optical_mount() @ poses[room].numpy(), result.T_odom_camera, atol=1e-5
            )
            torch.testing.assert_close(prediction.points[room], result.points, atol=1e-4, rtol=1e-4)


def test_errors_are_those_of_the_evaluation_of_a_bag(results):
    """The same room through the tracker and the metrics of `ttt3r evaluate`."""
    frames, depth, truth = filmed(SEEDS[1])
    config = with_values(CONFIG, {"update_rule": "ttt3r", "segment.reset_interval": 3})
    tracker = Tracker(load_model(config), config)
    steps = [tracker.step(frame) for frame in frames]
    for length in LENGTHS:
        found = results[1].errors["ttt3r", 3, length]
        poses = [step.T_odom_camera for step in steps[:length]]
        path = trajectory_errors(poses, truth[:length])
        assert found["ate_m"] == pytest.approx(path.ate_rmse_m, rel=1e-3)
        assert found["rpe_trans_m"] == pytest.approx(path.rpe_trans_m, rel=1e-3)
        assert found["rpe_rot_deg"] == pytest.approx(path.rpe_rot_deg, rel=1e-3)
        pairs = [
            np.stack((step.points[..., 2].numpy().ravel(), true.ravel())).astype(np.float64)
            for step, true in zip(steps[:length], depth, strict=False)
        ]
        errors = depth_errors(iter(pairs))
        assert found["abs_rel"] == pytest.approx(errors.abs_rel, rel=1e-4)
        assert found["delta_1_25"] == pytest.approx(errors.delta_1_25, abs=1e-4)


def test_the_constant_guess_is_a_camera_that_never_moves(results):
    _, depth, truth = filmed(SEEDS[0])
    guess = results[0].guess[7]
    places = truth[:, :3, 3]
    assert guess["ate_m"] == pytest.approx(
        math.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean())
    )
    steps = [inverse(a) @ b for a, b in pairwise(truth)]
    assert guess["rpe_trans_m"] == pytest.approx(
        math.sqrt(np.mean([np.sum(step[:3, 3] ** 2) for step in steps])), rel=1e-5
    )
    angles = [math.acos(min(1.0, (np.trace(step[:3, :3]) - 1) / 2)) for step in steps]
    assert guess["rpe_rot_deg"] == pytest.approx(
        math.degrees(math.sqrt(np.mean(np.square(angles)))), rel=1e-2
    )
    seen = depth[:, ::4, ::4]
    assert guess["abs_rel"] == pytest.approx(
        float((np.abs(np.median(seen) - seen) / seen).mean()), rel=1e-3
    )


def test_the_rooms_are_others_than_those_of_the_training():
    from tools.training.clips import FIRST_HELD_OUT_SEED

    assert (
        subject.FIRST_SEED >= FIRST_HELD_OUT_SEED + 50_000
    )  # settings are chosen on those between


def test_all_gains_are_counted_but_those_of_the_first_image_which_is_taken_whole(model, results):
    tokens = model.network.config.state_size
    assert [result.gains.sum() for result in results] == [6 * tokens] * 2


def test_means_have_the_standard_errors_of_their_rooms():
    assert subject.mean([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7 / 3)))
    assert subject.ratio([1.0, 2.0], [2.0, 4.0]) == pytest.approx((0.5, 0.0))
    quotient, error = subject.ratio([1.0, 3.0], [2.0, 2.0])
    assert (quotient, error) == pytest.approx((1.0, 0.5))


def test_the_difference_of_the_rules_is_taken_room_by_room(results):
    summary = subject.summarize(results, PLAN)
    (row,) = (
        row for row in summary["ttt3r_minus_cut3r"] if (row["interval"], row["images"]) == (3, 7)
    )
    by_room = [
        result.errors["ttt3r", 3, 7]["ate_m"] - result.errors["cut3r", 3, 7]["ate_m"]
        for result in results
    ]
    assert row["ate_m"] == pytest.approx(subject.mean(by_room))
    rows = {(row["rule"], row["interval"], row["images"]): row for row in summary["rows"]}
    assert row["ate_m"][0] == pytest.approx(
        rows["ttt3r", 3, 7]["ate_m"][0] - rows["cut3r", 3, 7]["ate_m"][0]
    )
    assert len(rows) == len(LENGTHS) * (1 + 2 * len(INTERVALS))
    assert sum(summary["gain_histogram"]) == pytest.approx(1)


def test_the_command_prints_a_table_and_writes_every_number(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    words = ["--checkpoint", "", "--rooms", "2", "--lengths", "3", "5", "--batch", "2"]
    subject.main([*words, "--processes", "1", "--supersampling", "1", "--json", str(file)])
    text = capsys.readouterr().out
    numbers = json.loads(file.read_text())
    assert text.count("| constant |") == 2 * len(numbers["intervals"])
    (row,) = (
        row
        for row in numbers["rows"]
        if (row["rule"], row["interval"], row["images"]) == ("ttt3r", 0, 5)
    )
    assert "| 5 | ttt3r | {:.3f} ± {:.3f} |".format(*row["ate_m"]) in text
    assert f"commit {numbers['commit']}" in text
    assert numbers["hardware"]["cpu"] in text
    assert len(numbers["by_room"]) == 2
