# SPDX-License-Identifier: Apache-2.0
"""The table of the demo model's errors, on random weights and a few images."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from plain_geometry import along_x
from small_network import small_checkpoint, write_small_checkpoint

from benchmarks import evaluate_demo_model as subject
from benchmarks import harness
from benchmarks.harness import Context, mean, ratio
from ttt3r_ros.config import Config, with_values
from ttt3r_ros.evaluation.metrics.depth import depth_errors
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.geometry import inverse
from ttt3r_ros.loading import load_model
from ttt3r_ros.simulation import make_rooms, make_trajectory, render
from ttt3r_ros.simulation.other_patterns import OTHER_FAMILIES
from ttt3r_ros.simulation.patterns import FAMILIES, PLAIN
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame

SEEDS = [subject.FIRST_SEED, subject.FIRST_SEED + 1]
RULES = ("cut3r", "ttt3r", "ttt3r:0.5", "brake")
LENGTHS, INTERVALS = (4, 7), (0, 3)
OPTIONS = subject.Options(LENGTHS, RULES, supersampling=1)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    write_small_checkpoint(path, segment__reset_interval=3)
    config = Config(checkpoint=str(path), device="cpu", process_all_images=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_OTHER_INTERVAL", 3)
        yield Context(config, OPTIONS, SEEDS[0], len(SEEDS))


@pytest.fixture(scope="module")
def results(context):
    return subject.evaluate_rooms(context, SEEDS)


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


def test_errors_are_those_of_the_evaluation_of_a_bag(context, results):
    """The same room through the tracker and the metrics of `ttt3r evaluate`."""
    frames, depth, truth = filmed(SEEDS[1])
    config = with_values(context.config, {"update_rule": "ttt3r", "segment.reset_interval": 3})
    tracker = Tracker(load_model(config), config)
    steps = [tracker.step(frame) for frame in frames]
    for length in LENGTHS:
        found = results[1].errors["ttt3r", 3, length]
        poses = [step.T_odom_camera for step in steps[:length]]
        path = trajectory_errors(poses, truth[:length]).by_alignment
        assert found["ate_m"] == pytest.approx(path["se3"].ate_rmse_m, rel=1e-3)
        assert found["ate_sim3_m"] == pytest.approx(path["sim3"].ate_rmse_m, rel=1e-3)
        assert found["rpe_trans_m"] == pytest.approx(path["none"].rpe_trans_rmse_m, rel=1e-3)
        assert found["rpe_rot_deg"] == pytest.approx(path["none"].rpe_rot_rmse_deg, rel=1e-3)
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


def test_the_confident_half_is_the_half_of_the_pixels_whose_confidence_is_greater():
    true = torch.full((1, 2, 4), 2.0)
    depth = torch.tensor([[[2.0, 2, 2, 2], [3.0, 3, 3, 3]]])
    confidence = torch.tensor([[[5.0, 6, 7, 8], [1.0, 2, 3, 4]]])
    relative, half, near = subject._depth_errors(depth, true, confidence)[0].tolist()
    assert relative == pytest.approx(0.25) and near == pytest.approx(0.5)
    assert half < 0.15  # the median pixel itself belongs to it


def test_the_second_domain_is_wide_tilted_and_of_textures_that_training_lacks():
    studio = subject.studio("second", range(subject.FIRST_SEED, subject.FIRST_SEED + 12), 64)
    degrees = sorted(2 * math.degrees(math.atan(32 / lens.fx)) for lens in studio.lenses)
    assert degrees[0] == pytest.approx(45) and degrees[-1] == pytest.approx(100)
    assert {lens.fx for lens in subject.studio("robot", SEEDS, 64).lenses} == {48}
    rgb, depth, poses = next(studio.film(1))
    assert rgb.shape == (12, 48, 64, 3) and depth.min() > 0.1 and poses.shape == (12, 4, 4)
    names = {weave.__name__ for weave in OTHER_FAMILIES.values()} - {"weave_plain"}
    trained = {weave.__name__ for weave in FAMILIES.values()}
    assert OTHER_FAMILIES.keys() == {*FAMILIES, PLAIN}
    assert {OTHER_FAMILIES[name] for name in FAMILIES}.isdisjoint(FAMILIES.values())
    assert len(names) > 10 and len(trained) == 16


def test_results_of_the_second_domain_have_every_figure(context):
    options = replace(OPTIONS, rules=("cut3r",), lengths=(4,), intervals=(2, 0), domain="second")
    other = replace(context, options=options)
    assert subject.intervals(other) == (2, 0) and subject.gain_interval(other) == 2
    result, _ = subject.evaluate_rooms(other, SEEDS)
    errors = result.errors["cut3r", 0, 4]
    assert all(math.isfinite(errors[name]) for name in ("ate_m", "abs_rel", "abs_rel_confident"))
    assert result.features[4] >= 0


def test_the_rooms_are_others_than_those_of_the_training():
    from tools.training.clips import FIRST_HELD_OUT_SEED

    assert (
        subject.FIRST_SEED >= FIRST_HELD_OUT_SEED + 50_000
    )  # settings are chosen on those between


def test_all_gains_are_counted_but_those_of_the_first_image_which_is_taken_whole(context, results):
    tokens = context.model.network.config.state_size
    for result in results:
        assert [result.gains[rule].sum() for rule in RULES] == [6 * tokens] * len(RULES)
        assert result.gains["cut3r"][-1] == 6 * tokens
        assert result.gains["ttt3r:0.5"][5:].sum() == 0


def test_the_drift_is_the_error_of_the_motion_over_a_metre_by_that_metre():
    truth = along_x([0.0, 0.5, 1.0, 1.5, 2.5])  # pairs: 0-2, 1-3, 2-4 of 1.5 m, 3-4
    scaled = along_x(1.25 * truth[:, 0, 3])
    assert subject._drift(scaled, truth) == pytest.approx(
        {"drift_percent": 25.0, "drift_deg_per_m": 0.0}, abs=1e-4
    )
    # From image 3 on off by 0.3 m: 1-3 and 2-4 see it.
    jump = along_x(truth[:, 0, 3] + [0, 0, 0, 0.3, 0.3])
    shares = [0.0, 0.3 / 1.0, 0.3 / 1.5, 0.0]
    assert subject._drift(jump, truth)["drift_percent"] == pytest.approx(100 * np.mean(shares))
    turning = along_x(truth[:, 0, 3], turn_deg=4.0)
    assert subject._drift(turning, truth)["drift_deg_per_m"] == pytest.approx(4.0, rel=1e-4)


def test_a_room_with_less_than_a_metre_of_path_has_no_drift():
    short = along_x([0.0, 0.4, 0.9])
    assert math.isnan(subject._drift(short, short)["drift_percent"])


@pytest.mark.parametrize("rule", RULES[1:])
def test_differences_are_taken_room_by_room(context, results, rule):
    summary = subject.summarize(context, results)

    def found(table):
        (row,) = (
            row
            for row in summary[table]
            if (row["rule"], row["interval"], row["images"]) == (rule, 3, 7)
        )
        return row

    ours = [result.errors[rule, 3, 7]["ate_m"] for result in results]
    others = [result.errors["cut3r", 3, 7]["ate_m"] for result in results]
    guess = [result.guess[7]["ate_m"] for result in results]
    to_reference, to_guess = found("minus_cut3r")["ate_m"], found("minus_constant")["ate_m"]
    assert to_reference == pytest.approx(mean(np.subtract(ours, others)))
    assert to_guess == pytest.approx(mean(np.subtract(ours, guess)))
    assert found("rows")["ate_by_guess"] == pytest.approx(ratio(ours, guess))
    rows = {(row["rule"], row["interval"], row["images"]): row for row in summary["rows"]}
    assert to_reference[0] == pytest.approx(
        rows[rule, 3, 7]["ate_m"][0] - rows["cut3r", 3, 7]["ate_m"][0]
    )
    assert len(rows) == len(LENGTHS) * (2 + len(RULES) * len(INTERVALS))
    assert sum(summary["gain_histogram"][rule]) == pytest.approx(1)


def test_the_command_prints_a_table_of_every_number(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    words = ["--checkpoint", small_checkpoint(), "--rooms", "2", "--lengths", "3", "5"]
    words += ["--supersampling", "1", "--json", str(file)]
    harness.run(subject.PROGRAM, words)
    text = capsys.readouterr().out
    numbers = json.loads(file.read_text())
    assert text.count("| constant |") == 2 * len(numbers["intervals"])
    (row,) = (
        row
        for row in numbers["rows"]
        if (row["rule"], row["interval"], row["images"]) == ("ttt3r", 0, 5)
    )
    assert "| 5 | ttt3r | {:.3f} ± {:.3f} |".format(*row["ate_m"]) in text
    assert len(numbers["by_room"]) == numbers["rooms"] == 2
