# SPDX-License-Identifier: Apache-2.0
"""The shipped model in rooms it has not seen; random weights where only numbers are followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from keyframe_examples import LENS, offered, random_features
from small_network import CONFIG, small_network

from benchmarks.evaluate_relocalization import Options, Studio, beside, drive, pose_errors
from benchmarks.streams import network_input
from ttt3r_ros.config import Config
from ttt3r_ros.geometry import inverse
from ttt3r_ros.loading import load_model
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.pose_graph.graph import PoseGraph
from ttt3r_ros.pose_graph.memory import LoopMemory
from ttt3r_ros.relocalization import relocalize as subject
from ttt3r_ros.relocalization.keyframes import KeyframeStore
from ttt3r_ros.relocalization.relocalize import Evidence, Limits, attempts, relocalize, stacked
from ttt3r_ros.session import MadeFor, Session, load_session, save_session

SEEDS = (2_400_200, 2_400_201, 2_400_202)
WHEN_S = (0.53, 1.37, 2.26)  # pictures between those that were taken on the way
LOOP_S = 24.0  # of which the first 2.5 s are driven


@pytest.fixture(scope="module")
def driven():
    """Model, rooms, what was remembered of each, and the truth."""
    model = load_model(Config(device="cpu"))
    studio = Studio(SEEDS, model.image_size, LOOP_S)
    options = Options(loop=2.5)
    stores, truth = drive(options, model, studio)
    return model, studio, stores, truth


def ask(driven, poses, room, store, **options):
    model, studio, stores, _ = driven
    rgb = studio.shoot(poses)
    with torch.inference_mode():
        features = model.network.encode(network_input(rgb[room, None], model.device))
    picture = rgb[room].numpy()
    return relocalize(model.network, features, picture, studio.lens, stores[store], **options)


def test_pictures_of_the_way_are_found_again_and_with_their_pose(driven):
    _, studio, _, truth = driven
    errors = []
    for t_s in WHEN_S:
        for room in range(len(SEEDS)):
            poses = studio.poses(t_s)
            found = ask(driven, poses, room, room)
            if found:
                keyframe = truth[found.keyframe.stamp_ns][room].numpy()
                errors.append(pose_errors(found, keyframe, poses[room].numpy()))
    assert len(errors) >= 7  # of 9
    metres, degrees = np.median(errors, axis=0)
    assert metres < 0.1 and degrees < 2


def test_pictures_from_beside_the_way_are_found(driven):
    _, studio, _, truth = driven
    generator = np.random.default_rng(0)
    errors = []
    for t_s in WHEN_S:
        poses = beside(studio.poses(t_s), 0.15, 5.0, generator)
        for room in range(len(SEEDS)):
            if found := ask(driven, poses, room, room):
                keyframe = truth[found.keyframe.stamp_ns][room].numpy()
                errors.append(pose_errors(found, keyframe, poses[room].numpy()))
    assert len(errors) >= 6  # of 9
    assert np.median(errors, axis=0)[0] < 0.2


def test_another_room_and_the_wall_behind_are_not_taken_for_what_was_seen(driven):
    _, studio, _, truth = driven
    generator = np.random.default_rng(1)
    for t_s in WHEN_S:
        poses = studio.poses(t_s)
        turned = beside(poses, 0.0, 180.0, generator)
        for room in range(len(SEEDS)):
            assert ask(driven, poses, room, (room + 1) % len(SEEDS)) is None
            if found := ask(driven, turned, room, room):  # the way may have led past that wall
                keyframe = truth[found.keyframe.stamp_ns][room].numpy()
                metres, degrees = pose_errors(found, keyframe, turned[room].numpy())
                assert metres < 0.3 and degrees < 10


def test_going_on_from_the_state_that_is_found_keeps_the_pose(driven):
    model, studio, _, _ = driven
    found = ask(driven, studio.poses(WHEN_S[0]), 0, 0)
    T_segment_camera = found.prediction.pose_matrix[0].double().numpy()
    T_segment_camera[:3, 3] *= found.keyframe.scale
    np.testing.assert_allclose(
        found.T_map_segment @ T_segment_camera, found.T_map_camera, atol=1e-5
    )
    rgb = studio.shoot(studio.poses(WHEN_S[0] + 0.1))
    with torch.inference_mode():
        _, prediction = model.network.step(found.state, network_input(rgb[:1], model.device))
    next_camera = found.T_map_segment @ prediction.pose_matrix[0].double().numpy()
    assert np.linalg.norm((inverse(found.T_map_camera) @ next_camera)[:3, 3]) < 0.15


def test_a_lower_precision_of_the_network_makes_hardly_a_difference(driven):
    poses = driven[1].poses(WHEN_S[1])
    full = ask(driven, poses, 0, 0)
    lower = load_model(Config(device="cpu", dtype="bfloat16"))
    low = ask((lower, *driven[1:]), poses, 0, 0)
    assert np.linalg.norm((inverse(full.T_map_camera) @ low.T_map_camera)[:3, 3]) < 0.05


def test_the_limits_decide(driven):
    _, studio, _, _ = driven
    poses = studio.poses(WHEN_S[0])
    assert ask(driven, poses, 0, 0)
    assert ask(driven, poses, 0, 0, limits=Limits(min_photometric_correlation=1.1)) is None


GOOD = Evidence(photometric_correlation=0.95, disagreement=0.05, share_seen=0.9, confidence=1.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"photometric_correlation": 0.5},
        {"photometric_correlation": float("nan")},
        {"disagreement": 0.5},
        {"disagreement": float("inf")},
        {"share_seen": 0.1},
        {"confidence": 0.01},
    ],
)
def test_every_part_of_the_evidence_must_suffice(bad):
    assert GOOD.suffices(Limits())
    assert not replace(GOOD, **bad).suffices(Limits())


@pytest.fixture
def store(monkeypatch):
    """Four keyframes; the poses of a network of random weights are nowhere near, so they stay."""
    monkeypatch.setattr(subject, "align", lambda guess, *_: (guess, torch.zeros(len(guess))))
    result = KeyframeStore()
    for number in range(4):
        view = offered(number, x_m=float(number))
        assert result.offer(**{**view, "scale": 1.0 + number})
    return result


def attempted(store, count, intrinsics=LENS):
    picture = offered(2)["rgb"]
    features = random_features(2) + 0.1 * random_features(1)
    return attempts(small_network(), features, picture, intrinsics, store, count)


def test_candidates_tried_together_answer_as_each_by_itself(store):
    together = attempted(store, 4)
    assert [a.keyframe.scale for a in together[:2]] == [3.0, 2.0]  # most alike first
    for answer in together:
        alone = KeyframeStore()
        alone.restore([answer.keyframe])
        (single,) = attempted(alone, 1)
        np.testing.assert_allclose(answer.T_map_segment, single.T_map_segment, atol=0.02)
        assert answer.median_confidence == pytest.approx(single.median_confidence, rel=1e-4)
        torch.testing.assert_close(answer.state.tokens, single.state.tokens, atol=1e-4, rtol=1e-4)


def test_the_answer_is_that_of_a_step_from_the_keyframes_state(store):
    answer = attempted(store, 1)[0]
    features = random_features(2) + 0.1 * random_features(1)
    with torch.inference_mode():
        state, prediction = small_network().advance(answer.keyframe.state, features)
    torch.testing.assert_close(answer.state.tokens, state.tokens)
    torch.testing.assert_close(answer.prediction.points, prediction.points)
    assert answer.median_confidence == pytest.approx(float(prediction.confidence.median()))
    above_1 = (answer.median_confidence - 1) / 2  # the keyframe's is 3
    assert answer.evidence.confidence == pytest.approx(above_1)


def test_the_store_and_its_states_are_left_as_they_were(store):
    before = [keyframe.state.tokens.clone() for keyframe in store.keyframes]
    attempted(store, 4)
    for keyframe, tokens in zip(store.keyframes, before, strict=True):
        assert torch.equal(keyframe.state.tokens, tokens)


def test_without_intrinsics_those_of_a_keyframe_are_used(store):
    known, unknown = attempted(store, 1, LENS), attempted(store, 1, None)
    np.testing.assert_array_equal(known[0].T_map_camera, unknown[0].T_map_camera)


def test_nothing_remembered_or_only_pictures_of_another_size_is_no_answer(store):
    picture = np.zeros((64, 128, 3), np.uint8)
    features = random_features(0)[:, :4]
    network = small_network()
    assert relocalize(network, features, picture, None, store) is None
    assert relocalize(network, features, picture, None, KeyframeStore()) is None


def test_states_are_stacked_with_what_their_rule_keeps():
    states = [
        replace(offered(n)["state"], rule_state={"push": torch.full((1, 2), float(n))})
        for n in range(3)
    ]
    batch = stacked(states)
    assert batch.tokens.shape == (3, CONFIG.state_size, CONFIG.dec_embed_dim)
    assert batch.rule_state["push"].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_a_place_is_found_the_same_after_a_restart_from_a_file(driven, tmp_path):
    model, studio, stores, _ = driven
    owner = MadeFor("ab" * 32, "ttt3r", 1.0, model.image_size)
    voxels = VoxelMap(0.05, 1000).to_tensors()
    graph = PoseGraph()
    for segment in sorted({keyframe.segment for keyframe in stores[0].keyframes}):
        graph.add_segment(segment, np.eye(4))
    loops = LoopMemory(graph, dict.fromkeys(graph.segments, 0.0))
    save_session(tmp_path / "flat", Session(stores[0].keyframes, voxels, [], [], loops), owner)
    loaded = load_session(tmp_path / "flat", owner, model.network.initial_state(), 0.05)
    again = KeyframeStore()
    again.restore(loaded.keyframes)
    poses = studio.poses(WHEN_S[1])
    picture = studio.shoot(poses)[0]
    with torch.inference_mode():
        features = model.network.encode(network_input(picture[None], model.device))
    asked = (model.network, features, picture.numpy(), studio.lens)
    before, after = relocalize(*asked, stores[0]), relocalize(*asked, again)
    np.testing.assert_allclose(before.T_map_camera, after.T_map_camera, atol=1e-5)
    assert before.keyframe.stamp_ns == after.keyframe.stamp_ns
