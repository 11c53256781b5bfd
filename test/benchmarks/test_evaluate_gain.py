# SPDX-License-Identifier: Apache-2.0
"""The tables of gains under spoilt images, on random weights and a few images."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from small_network import small_checkpoint

from benchmarks import evaluate_demo_model, evaluate_faults
from benchmarks import evaluate_gain as subject
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.loading import load_model

CONFIG = Config(checkpoint=small_checkpoint(), device="cpu", process_all_images=True)
SEEDS = [2_400_000, 2_400_001]
SPOILT = 3
PLAN = subject.Plan(CONFIG, ("cut3r", "brake"), (3,), SPOILT)
IMAGES = (subject.CLEAN, *subject.SHUTTERS_S, *subject.SPOILS, subject.LEFT_OUT)


@pytest.fixture(scope="module", autouse=True)
def _coarse_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_SUPERSAMPLING", 1)
        yield


@pytest.fixture(scope="module")
def model():
    return load_model(CONFIG)


@pytest.fixture(scope="module")
def outcomes(model):
    return subject.evaluate_rooms(PLAN, SEEDS, model)


@pytest.fixture(scope="module")
def filmed():
    images = SPOILT + 1 + subject.AFTER
    return [*evaluate_demo_model.film(SEEDS, images, 128, 96, supersampling=1)]


def test_every_rule_meets_every_image(model, outcomes):
    assert list(outcomes) == [(r, 3, n) for r in PLAN.rules for n in IMAGES]
    for (_, _, name), found in outcomes.items():
        tokens = 0 if name == subject.LEFT_OUT else model.network.config.state_size
        assert found.gain.shape == (2, tokens)
        assert found.errors_m.shape == found.errors_deg.shape == (2, 1 + subject.AFTER)


@pytest.mark.parametrize("spoil", ["pure noise", subject.LEFT_OUT])
def test_a_branch_gets_what_a_film_with_the_spoilt_image_gets(model, filmed, outcomes, spoil):
    """The same through a tracker of its own, compared as `ttt3r evaluate` does."""
    tracker = evaluate_demo_model.BatchTracker(model.network, "brake", 3, len(SEEDS))
    poses, gains, truth = [], [], []
    with torch.inference_mode():
        for number, (rgb, _, T_world_camera) in enumerate(filmed):
            if number == SPOILT:
                if spoil == subject.LEFT_OUT:
                    continue
                rgb = subject.SPOILS[spoil](rgb, SEEDS)
            features = model.network.encode(rgb.permute(0, 3, 1, 2).float() / 127.5 - 1)
            T_first_camera, prediction = tracker.step(features)
            poses.append(T_first_camera)
            gains.append(prediction.gain)
            truth.append(T_world_camera)
    found = outcomes["brake", 3, spoil]
    if spoil != subject.LEFT_OUT:
        np.testing.assert_allclose(found.gain, gains[SPOILT], atol=1e-4)
    for room in range(len(SEEDS)):
        ends = (SPOILT - 1, -1)
        path = trajectory_errors([poses[i][room] for i in ends], [truth[i][room] for i in ends])
        errors = path.by_alignment["none"]
        assert found.errors_m[room, -1] == pytest.approx(errors.rpe_trans_rmse_m, rel=1e-2)
        assert found.errors_deg[room, -1] == pytest.approx(errors.rpe_rot_rmse_deg, rel=1e-2)


def test_an_image_left_out_has_no_pose(outcomes):
    errors = outcomes["cut3r", 3, subject.LEFT_OUT].errors_m
    assert np.isnan(errors[:, 0]).all()
    assert np.isfinite(errors[:, 1:]).all()


def test_spoilt_images_are_as_spoilt_as_their_names_say(filmed):
    rgb = filmed[SPOILT][0]
    spoilt = {name: spoil(rgb, SEEDS) for name, spoil in subject.SPOILS.items()}
    for picture in spoilt.values():
        assert picture.dtype == torch.uint8
        assert picture.shape == rgb.shape
    middle = (rgb > 60) & (rgb < 195)  # nothing is cut off
    noise = (spoilt["noise 0.05"].float() - rgb.float())[middle]
    assert float(noise.std()) == pytest.approx(0.05 * 255, rel=0.05)
    stronger = [float((spoilt[f"noise {s}"].float() - rgb).abs().mean()) for s in (0.05, 0.15, 0.4)]
    assert stronger == sorted(stronger)
    torch.testing.assert_close(spoilt["exposure x 0.25"].float(), rgb / 4, atol=0.5, rtol=0)
    assert torch.equal(spoilt["exposure x 4"], (rgb.int() * 4).clamp(max=255).byte())
    assert spoilt["covered"].float().mean() < 20
    assert float(spoilt["pure noise"].float().std()) == pytest.approx(255 / math.sqrt(12), rel=0.02)
    assert not torch.equal(spoilt["pure noise"][0], spoilt["pure noise"][1])


def test_a_short_exposure_is_the_clean_image_and_a_longer_one_differs_more(filmed):
    rgb = filmed[SPOILT][0].float()
    differences = [
        float((subject.exposed(SEEDS, SPOILT, shutter_s, 128, 96) - rgb).abs().mean())
        for shutter_s in (1e-6, 0.1, 0.3)
    ]
    assert differences[0] < 0.05
    assert differences == sorted(differences)


def test_differences_are_taken_room_by_room(outcomes):
    rows = {(r["rule"], r["interval"], r["image"]): r for r in subject.summarize(outcomes, PLAN)}
    name = "exposure x 4"
    spoilt, clean = (outcomes["brake", 3, n] for n in (name, subject.CLEAN))
    theirs, their_clean = (outcomes["cut3r", 3, n] for n in (name, subject.CLEAN))
    row, mean = rows["brake", 3, name], evaluate_demo_model.mean
    assert row["gain_minus_clean"] == pytest.approx(mean((spoilt.gain - clean.gain).mean(axis=1)))
    more = spoilt.errors_m - clean.errors_m
    assert row["error_m_minus_clean"][5] == pytest.approx(mean(more[:, 5]))
    beside = (more - (theirs.errors_m - their_clean.errors_m))[:, 5]
    assert row["error_m_minus_clean_minus_cut3r"][5] == pytest.approx(mean(beside))
    assert rows["brake", 3, subject.CLEAN]["gain_minus_clean"] == (0, 0)
    assert rows["cut3r", 3, name]["gain"] == (1, 0)
    assert row["gain_quantiles"] == sorted(row["gain_quantiles"])


def test_the_rooms_are_others_than_those_of_other_reports():
    assert subject.FIRST_SEED > evaluate_faults.FIRST_SEED > evaluate_demo_model.FIRST_SEED


def test_the_command_prints_tables_and_writes_every_number(tmp_path, capsys):
    file = tmp_path / "gain.json"
    words = ["--checkpoint", small_checkpoint(), "--rooms", "2", "--batch", "1", "--spoilt", "1"]
    subject.main([*words, "--rules", "cut3r", "filt3r", "--json", str(file)])
    text = capsys.readouterr().out
    numbers = json.loads(file.read_text())
    assert len(numbers["rows"]) == 2 * len(IMAGES)  # nothing is recommended: without resets only
    row = next(r for r in numbers["rows"] if (r["rule"], r["image"]) == ("filt3r", "covered"))
    gain = "{:.4f}, {:+.4f} ± {:.4f}".format(row["gain"][0], *row["gain_minus_clean"])
    assert f"| covered | {gain} |" in text
    value, error = (100 * part for part in row["error_m_minus_clean"][0])
    assert f"| {value:+.2f} ± {error:.2f} cm, " in text
    assert numbers["commit"] in text


def test_there_must_be_an_image_before_the_spoilt_one(capsys):
    with pytest.raises(SystemExit):
        subject.main(["--spoilt", "0"])
    assert "--spoilt: must be at least 1, got 0" in capsys.readouterr().err
