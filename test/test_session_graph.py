# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from seen_again import EAGER, recognise_every_place
from tracked_frames import frames, pipeline

from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.pose_graph.memory import LoopMemory
from ttt3r_ros.session import made_for, save_session
from ttt3r_ros.session_graph import read_graph, write_graph
from ttt3r_ros.types import SessionError

CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)


def assert_equal(one: Edge | End, other: Edge | End) -> None:
    for entry in fields(one):
        a, b = (getattr(edge, entry.name) for edge in (one, other))
        if isinstance(a, End):
            assert_equal(a, b)
        else:
            np.testing.assert_array_equal(a, b)


def test_a_saved_session_has_the_graph_to_the_last_bit_and_the_node_of_each_pose(
    tmp_path, monkeypatch
):
    recognise_every_place(monkeypatch)
    subject = pipeline(**EAGER)
    segments = [subject.process(replace(frame, intrinsics=CAMERA)).segment for frame in frames(25)]
    assert subject.loops.counts.corrections > 0
    owner = made_for(subject.config, subject.model.image_size)
    save_session(tmp_path / "session", subject.session(), owner)
    loops, path_segments = read_graph(tmp_path / "session" / "graph.json")
    graph, known = loops.graph, subject.loops.graph
    assert loops.way_since == subject.loops.memory().way_since
    assert path_segments == segments and set(segments) == set(graph.segments)
    assert graph.segments == known.segments
    for segment in graph.segments:
        np.testing.assert_array_equal(graph.pose(segment), known.pose(segment))
    assert len(graph.edges) == len(known.edges) > len(graph.loops) > 0
    for one, other in zip(graph.edges, known.edges, strict=True):
        assert_equal(one, other)


def edge(**values) -> Edge:
    T = np.eye(4)
    return Edge(End(3), End(5, T), T, np.eye(6), EdgeKind.LOOP, **values)


@pytest.fixture
def written(tmp_path):
    graph = PoseGraph()
    graph.add_segment(3, np.eye(4))
    graph.add_segment(5, np.eye(4))
    graph.add_edge(edge(log_ratio=0.1, log_ratio_sigma=0.2, is_believed=False))
    graph.add_edge(edge())
    write_graph(tmp_path / "graph.json", LoopMemory(graph, {3: 1.0, 5: 0.0}), [3, 3, 5])
    return tmp_path / "graph.json"


def test_scales_and_doubt_are_kept(written):
    loops, path_segments = read_graph(written)
    doubted, believed = loops.graph.edges
    assert (doubted.log_ratio, doubted.log_ratio_sigma, doubted.is_believed) == (0.1, 0.2, False)
    assert (believed.log_ratio_sigma, believed.is_believed) == (math.inf, True)
    assert path_segments == [3, 3, 5]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda graph: graph.pop("path_segments"), "'path_segments' is missing"),
        (lambda graph: graph["nodes"].pop(), "expected two different nodes, got 3 and 5"),
        (lambda graph: graph["edges"][0].update(covariance=[[1.0]]), "edge.covariance"),
        (lambda graph: graph["edges"][0].update(kind="guess"), "'guess' is not a valid EdgeKind"),
        (lambda graph: graph["nodes"][0].update(T_map_segment="here"), "could not convert"),
        (lambda graph: graph["edges"][0]["first"].update(T_segment_camera=[]), "T_segment_camera"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_file_and_reason(written, damage, reason):
    content = json.loads(written.read_text())
    damage(content)
    written.write_text(json.dumps(content))
    with pytest.raises(SessionError, match=rf"graph\.json: damaged: .*{reason}"):
        read_graph(written)


def test_half_a_file_and_none_are_errors(written):
    written.write_text(written.read_text()[:-20])
    with pytest.raises(SessionError, match=r"graph\.json: damaged"):
        read_graph(written)
    written.unlink()
    with pytest.raises(SessionError, match="No such file"):
        read_graph(written)
