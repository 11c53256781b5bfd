# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from keyframe_examples import offered
from safetensors import SafetensorError
from small_network import small_checkpoint, small_network

from ttt3r_ros import session as subject
from ttt3r_ros.config import Config
from ttt3r_ros.geometry import transform
from ttt3r_ros.loading import load_model
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.network.state import find_update_rule
from ttt3r_ros.pose_graph.acceptance import KnownAnswers
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.pose_graph.memory import LoopMemory
from ttt3r_ros.relocalization.keyframes import KeyframeStore
from ttt3r_ros.session import MadeFor, Session, load_session, made_for, save_session
from ttt3r_ros.types import SessionError

OWNER = MadeFor("ab" * 32, "ttt3r", 1.0, 128)
VOXEL_M = 0.1
SEGMENTS = (0, 5)  # of which the last is -1 when it is read
INITIAL = small_network().initial_state()


def make_session(keyframes=3):
    rng = np.random.default_rng(0)
    store = KeyframeStore()
    for i in range(keyframes):
        assert store.offer(**offered(i, x_m=float(i)))
    voxels = VoxelMap(VOXEL_M, 1000)
    for segment in SEGMENTS:
        points = torch.from_numpy(rng.normal(0, 1, (50, 3)).astype(np.float32))
        colours = torch.from_numpy(rng.integers(0, 256, (50, 3)))
        voxels.insert(points, colours, torch.ones(50), segment)
    trajectory = [
        (1_700_000_000_123_456_789 + i, transform(np.eye(3), (i, 0, 1))) for i in range(4)
    ]
    return Session(store.keyframes, voxels.to_tensors(), trajectory, [0, 0, 5, 5], known_loops())


def known_loops():
    graph = PoseGraph()
    for segment in SEGMENTS:
        graph.add_segment(segment, transform(np.eye(3), (segment, 0, 0)), size=1 + segment)
    ends = End(SEGMENTS[0]), End(SEGMENTS[1], np.eye(4), 123)
    graph.add_edge(Edge(*ends, np.eye(4), np.eye(6), EdgeKind.LOOP))
    known = KnownAnswers(((0.05, 1.5, 4.0), (0.06, 1.4, 5.0)), (0.3,))
    return LoopMemory(graph, dict(zip(SEGMENTS, (7.25, 2.5), strict=True)), known)


def load(folder, owner=OWNER, initial=INITIAL, voxel_size_m=VOXEL_M):
    return load_session(folder, owner, initial, voxel_size_m)


@pytest.fixture
def folder(tmp_path):
    save_session(tmp_path / "flat", make_session(), OWNER)
    return tmp_path / "flat"


def assert_equal(one, other, where=""):
    if torch.is_tensor(one):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and np.array_equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_equal(one[name], other[name], name)
    else:
        assert one == other, where


def test_everything_comes_back_to_the_last_bit(folder):
    saved, loaded = make_session(), load(folder)
    assert len(loaded.keyframes) == 3
    for one, other in zip(saved.keyframes, loaded.keyframes, strict=True):
        for name in (f.name for f in fields(one) if f.name not in ("state", "segment")):
            assert_equal(getattr(one, name), getattr(other, name), name)
        assert_equal(one.state.to_tensors(), other.state.to_tensors())
    # But the segments: their numbers are given again.
    assert {keyframe.segment for keyframe in loaded.keyframes} == {-2}
    segments = torch.where(saved.map_tensors["segment"] == 5, -1, -2).int()
    assert_equal({**saved.map_tensors, "segment": segments}, loaded.map_tensors)
    assert [stamp for stamp, _ in loaded.trajectory] == [stamp for stamp, _ in saved.trajectory]
    np.testing.assert_allclose(loaded.trajectory[3][1], saved.trajectory[3][1], atol=1e-9)
    assert loaded.path_segments == [-2, -2, -1, -1]


def test_what_is_known_of_loops_comes_back_to_the_last_bit(folder):
    saved, loaded = known_loops(), load(folder).loops
    assert loaded.known == saved.known
    assert loaded.way_since == {-2: 7.25, -1: 2.5}
    assert loaded.graph.segments == (-2, -1) and not loaded.graph.held
    for old, new in zip(SEGMENTS, (-2, -1), strict=True):
        assert loaded.graph.size(new) == 1 + old
        assert_equal(loaded.graph.pose(new), saved.graph.pose(old))
    (edge,) = loaded.graph.edges
    assert (edge.first.segment, edge.second.segment, edge.second.stamp_ns) == (-2, -1, 123)


def test_the_folder_holds_the_files_that_other_programs_read(folder):
    assert sorted(file.name for file in folder.iterdir()) == [
        "graph.json", "keyframes.safetensors", "map.ply", "map.safetensors", "session.json",
        "trajectory.tum",
    ]  # fmt: skip
    assert (folder / "map.ply").read_bytes().startswith(b"ply\nformat binary_little_endian")
    assert len((folder / "trajectory.tum").read_text().splitlines()) == 4


def test_a_session_without_keyframes_voxels_and_poses_is_one(tmp_path):
    nothing = Session([], VoxelMap(VOXEL_M, 1000).to_tensors(), [], [], LoopMemory())
    save_session(tmp_path / "s", nothing, OWNER)
    loaded = load(tmp_path / "s")
    assert not loaded.keyframes and not loaded.trajectory and not len(loaded.loops.graph)
    assert len(VoxelMap.from_tensors(loaded.map_tensors, 1000)) == 0


@pytest.mark.parametrize("rule", ["brake", "filt3r"])
def test_the_state_of_a_rule_with_a_memory_comes_back(tmp_path, rule):
    network = small_network()
    network.update_rule = find_update_rule(rule)
    state = network.initial_state()
    keyframe = replace(make_session(1).keyframes[0], state=state)
    owner = replace(OWNER, update_rule=rule)
    save_session(tmp_path / "s", replace(make_session(), keyframes=[keyframe]), owner)
    loaded = load(tmp_path / "s", owner, state).keyframes[0]
    assert_equal(state.to_tensors(), loaded.state.to_tensors())


def test_a_session_is_replaced_and_nothing_else_is_left(folder):
    save_session(folder, make_session(1), OWNER)
    assert len(load(folder).keyframes) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["flat"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "new").mkdir()
    save_session(tmp_path / "new", make_session(1), OWNER)
    assert len(load(tmp_path / "new").keyframes) == 1


@pytest.mark.parametrize("kind", ["folder", "json", "file", "link"])
def test_what_is_no_session_is_not_replaced(tmp_path, folder, kind):
    path = tmp_path / "mine"
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        path.symlink_to(folder)
    else:
        path.mkdir()
        (path / "session.json").write_text('{"format": "mine"}' if kind == "json" else "mine")
    with pytest.raises(SessionError, match="mine: exists and is no session"):
        save_session(path, make_session(), OWNER)
    assert path.exists() and len(load(folder).keyframes) == 3


def test_where_the_parent_is_missing_the_error_names_it(tmp_path):
    with pytest.raises(SessionError, match=f"{tmp_path}/a does not exist"):
        save_session(tmp_path / "a" / "b", make_session(), OWNER)


@pytest.mark.parametrize("failing", ["save_file", "write_ply", "TumWriter", "_put_in_place"])
def test_when_writing_fails_the_old_session_stays_and_nothing_else(folder, monkeypatch, failing):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(subject, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        save_session(folder, make_session(1), OWNER)
    assert [path.name for path in folder.parent.iterdir()] == ["flat"]
    assert len(load(folder).keyframes) == 3


def test_a_full_disk_is_an_os_error_whoever_writes(tmp_path, monkeypatch):
    def fail(*arguments):
        raise SafetensorError("I/O error: File too large")

    monkeypatch.setattr(subject, "save_file", fail)
    with pytest.raises(OSError, match="File too large"):
        save_session(tmp_path / "one", make_session(1), OWNER)
    assert not list(tmp_path.iterdir())


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    session = make_session()
    session.keyframes[1].state.tokens[0, 0, 0] = torch.nan
    with pytest.raises(SessionError, match=r"keyframe 1: state.tokens is not finite"):
        save_session(tmp_path / "s", session, OWNER)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint_sha256", "cd" * 32),
        ("update_rule", "brake"),
        ("damping", 0.5),
        ("image_size", 512),
    ],
)
def test_a_session_of_another_network_is_refused_by_name_and_values(folder, name, value):
    expected = f"flat: {name}: must be {value!r} .* made with {getattr(OWNER, name)!r}"
    with pytest.raises(SessionError, match=expected):
        load(folder, replace(OWNER, **{name: value}))


def test_a_map_of_another_voxel_size_is_refused(folder):
    with pytest.raises(SessionError, match=r"map.voxel_size_m: must be 0.1 .* got 0.05"):
        load(folder, voxel_size_m=0.05)


def test_states_that_lack_what_the_rule_keeps_are_refused(folder):
    network = small_network()
    network.update_rule = find_update_rule("brake")
    expected = r"keyframe 0: state.rule.push: expected torch.float32 \[1, 64, 128\], got nothing"
    with pytest.raises(SessionError, match=expected):
        load(folder, initial=network.initial_state())


def edited(folder, **changes):
    path = folder / "session.json"
    about = json.loads(path.read_text())
    about.update(changes)
    path.write_text(json.dumps(about))


def test_another_version_is_refused(folder):
    edited(folder, format="ttt3r_ros session 2")
    with pytest.raises(SessionError, match=r"'format' must be 'ttt3r_ros session 3', got .* 2'"):
        load(folder)


def test_a_folder_without_a_session_is_named(tmp_path):
    with pytest.raises(SessionError, match=f"{tmp_path}: no session, there is no session.json"):
        load(tmp_path)
    with pytest.raises(SessionError, match="nowhere: no session"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name",
    ["graph.json", "keyframes.safetensors", "map.safetensors", "trajectory.tum", "session.json"],
)
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_file_is_an_error_that_names_the_folder(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2 + 3] if damage == "cut" else b"[1]\n" * 9)
    with pytest.raises(SessionError, match="flat"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voxels": 7}, "7 voxels expected"),
        ({"poses": 5}, "5 poses expected, 4 found"),
        ({"made_for": {}}, "damaged session"),
        ({"keyframes": []}, "belongs to none of 0 keyframes"),
        ({"keyframes": [{}, {}, {}]}, "'intrinsics' is missing"),
    ],
)
def test_what_does_not_belong_together_is_an_error(folder, changes, message):
    edited(folder, **changes)
    with pytest.raises(SessionError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda graph: graph.update(path_segments=[0, 0, 5]), "4 segments of poses expected, 3"),
        (lambda graph: graph.update(path_segments=[0, 0, 5, 9]), r"no nodes \[9\]"),
        (lambda graph: graph.update(nodes=graph["nodes"][1:], edges=[]), r"no nodes \[0\]"),
        (lambda graph: graph["nodes"][0].update(size=0), "size: must be at least 1, got 0"),
        (lambda graph: graph["nodes"][0].update(way_since=float("nan")), "way_since: must be fin"),
        (lambda graph: graph.update(known_answers={"right": [[1, 2]], "wrong": []}), "answers: "),
    ],
)
def test_a_graph_that_does_not_go_with_the_rest_is_an_error(folder, damage, message):
    graph = json.loads((folder / "graph.json").read_text())
    damage(graph)
    (folder / "graph.json").write_text(json.dumps(graph))
    with pytest.raises(SessionError, match=message):
        load(folder)


def test_a_pose_that_is_none_is_an_error(folder):
    about = json.loads((folder / "session.json").read_text())
    about["keyframes"][2]["T_map_camera"][0] = [1, 2, 3]
    edited(folder, **about)
    with pytest.raises(SessionError, match="damaged session"):
        load(folder)


def test_states_belong_to_the_weights_the_rule_and_the_size():
    config = Config(checkpoint=small_checkpoint(), device="cpu", damping=0.5)
    owner = made_for(config, load_model(config).image_size)
    assert (owner.update_rule, owner.damping, owner.image_size) == ("ttt3r", 0.5, 128)
    assert len(owner.checkpoint_sha256) == 64
    shipped = made_for(replace(config, checkpoint=""), load_model(config).image_size)
    assert shipped.checkpoint_sha256 != owner.checkpoint_sha256
