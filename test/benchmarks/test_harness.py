# SPDX-License-Identifier: Apache-2.0
"""What the evaluate programs share: several streams at once, means, tables, the command line."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_network import small_checkpoint

from benchmarks import harness
from benchmarks.harness import option
from benchmarks.streams import BatchTracker, Studio, find_rule, frames, lengths, network_input
from ttt3r_ros.config import Config, with_values
from ttt3r_ros.geometry import optical_extrinsics, transform
from ttt3r_ros.loading import load_model
from ttt3r_ros.network.state import Ttt3r
from ttt3r_ros.tracking.tracker import Tracker

CONFIG = Config(checkpoint=small_checkpoint(), device="cpu", process_all_images=True)
SEEDS = [1_000_000, 1_000_001]
RULES = ("cut3r", "ttt3r:0.5", "brake", "filt3r")


@pytest.fixture(scope="module")
def model():
    return load_model(CONFIG)


@pytest.fixture(scope="module")
def shots():
    return list(Studio(SEEDS, 128).film(7))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("interval", (0, 3))
def test_several_rooms_at_once_get_the_poses_of_the_tracker_and_its_depth(
    model, shots, rule, interval
):
    batch = BatchTracker(model.network, rule, interval, len(SEEDS))
    with torch.inference_mode():
        steps = [
            batch.step(model.network.encode(network_input(shot.rgb, model.device)))
            for shot in shots
        ]
    assert [step.segment for step in steps] == [0, 0, 0, 1, 1, 1, 2] if interval else [0] * 7
    name, _, damping = rule.partition(":")
    values = {"update_rule": name, "damping": float(damping or 1)}
    config = with_values(CONFIG, {**values, "segment.reset_interval": interval})
    for room in range(len(SEEDS)):
        tracker = Tracker(load_model(config), config)
        film = frames([shot.rgb[room].numpy() for shot in shots], 0)
        for frame, step in zip(film, steps, strict=True):
            result = tracker.step(frame)
            pose = optical_extrinsics() @ step.T_first_camera[room].numpy()
            np.testing.assert_allclose(pose, result.T_odom_camera, atol=1e-5)
            points = step.prediction.points[room]
            torch.testing.assert_close(points, result.points, atol=1e-4, rtol=1e-4)


def test_counting_the_shared_image_makes_later_segments_an_image_shorter(model, shots):
    batch = BatchTracker(model.network, "ttt3r", 3, len(SEEDS), counts_shared=True)
    with torch.inference_mode():
        features = model.network.encode(network_input(shots[0].rgb, model.device))
        assert [batch.step(features).segment for _ in range(7)] == [0, 0, 0, 1, 1, 2, 2]


def test_a_step_has_the_state_before_a_reset_and_a_pose_that_is_not_finite_is_an_error(
    model, shots
):
    with torch.inference_mode():
        features = model.network.encode(network_input(shots[0].rgb, model.device))
        batch = BatchTracker(model.network, "ttt3r", 1, len(SEEDS))
        first, second = batch.step(features), batch.step(features)
        assert first.ends_segment and not torch.equal(first.state.tokens, second.state.tokens)
        T_first_second = first.T_first_camera.numpy()
        np.testing.assert_allclose(second.T_first_camera.numpy() - T_first_second, 0, atol=1)
        with pytest.raises(ValueError, match="not finite"):
            batch.step(features * math.nan)


def test_films_are_the_same_at_every_length(shots):
    for one, other in zip(Studio(SEEDS, 128).film(2), shots, strict=False):
        assert torch.equal(one.rgb, other.rgb) and torch.equal(one.depth_m, other.depth_m)


def test_a_damping_is_for_ttt3r_alone_and_a_rule_must_be_known():
    assert isinstance(find_rule("ttt3r:0.5"), Ttt3r)
    with pytest.raises(ValueError, match=r"brake:0\.5"):
        find_rule("brake:0.5")
    with pytest.raises(ValueError, match="kalman"):
        find_rule("kalman")


def test_a_transform_moves_by_metres_and_turns_by_degrees():
    turn = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert lengths(transform(turn, (0.3, 0.0, 0.4))) == pytest.approx((0.5, 90.0))


def test_means_have_the_standard_errors_of_their_rooms():
    assert harness.mean([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7 / 3)))
    assert harness.mean([math.nan, 1.0, 2.0, 6.0]) == harness.mean([1.0, 2.0, 6.0])
    assert all(map(math.isnan, harness.mean([math.nan])))
    assert harness.ratio([1.0, 2.0], [2.0, 4.0]) == pytest.approx((0.5, 0.0))
    assert harness.ratio([1.0, 3.0], [2.0, 2.0]) == pytest.approx((1.0, 0.5))
    assert harness.ratio([math.nan, 1.0, 3.0], [5.0, 2.0, 2.0]) == harness.ratio([1, 3], [2, 2])


def test_cells_show_errors_where_there_are_any():
    assert harness.cell((0.0123, 0.0011), 1, 100) == "1.2 ± 0.1"
    assert harness.cell((1.5, math.nan), 2) == "1.50" and harness.cell((math.nan, 1.0), 2) == "-"
    assert harness.table(["a", "b"], [[1, "x"]], "t") == [
        *("**t**", "", "| a | b |", "|---|---|", "| 1 | x |", ""),
    ]


@dataclass(frozen=True, slots=True)
class Options:
    limit: int = option(3, "of something")
    names: tuple[str, ...] = option(("a", "b"), "of things", choices=("a", "b"))

    def __post_init__(self):
        if self.limit < 1:
            raise ValueError("--limit: below 1")


def measure(context, seeds):
    if context.options.limit == 7 and 12 in seeds:
        raise KeyboardInterrupt
    return [seed * context.options.limit for seed in seeds]


PROGRAM = harness.Evaluation(
    about="",
    options=Options,
    first_seed=10,
    measure=measure,
    summarize=lambda _, results: {"found": results},
    markdown=lambda report: [f"{report['found']} {report['extra']}", harness.made_with(report)],
    rooms=3,
    batch=2,
    before=lambda context: {"extra": context.options.names},
    more_rooms=lambda options: 1,
)
WORDS = ["--checkpoint", small_checkpoint()]


def test_a_program_measures_its_rooms_and_prints_and_writes_what_it_found(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    harness.run(PROGRAM, [*WORDS, "--limit", "2", "--names", "b", "b", "--json", str(file)])
    text, report = capsys.readouterr().out, json.loads(file.read_text())
    assert text.startswith("[20, 22, 24, 26] ('b',)\nWeights small.safetensors")
    assert report["found"] == [20, 22, 24, 26] and report["rooms"] == 3
    assert report["plan"] == {"limit": 2, "names": ["b"]}
    assert f"commit {report['commit']}." in text


def test_numbers_are_written_after_each_batch_so_that_a_stop_loses_nothing(tmp_path):
    file = tmp_path / "numbers.json"
    with pytest.raises(KeyboardInterrupt):
        harness.run(PROGRAM, [*WORDS, "--limit", "7", "--json", str(file)])
    assert json.loads(file.read_text())["found"] == [70, 77]


def test_options_that_do_not_go_together_are_named(capsys):
    with pytest.raises(SystemExit):
        harness.run(PROGRAM, ["--limit", "0"])
    assert "--limit: below 1" in capsys.readouterr().err


def test_batches_may_be_shared_by_processes(capsys):
    harness.run(PROGRAM, [*WORDS, "--processes", "2"])
    assert capsys.readouterr().out.startswith("[30, 33, 36, 39]")
