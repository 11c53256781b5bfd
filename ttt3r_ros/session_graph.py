# SPDX-License-Identifier: Apache-2.0
"""What a session keeps of loops, as a file: the pose graph, and the segment of each path pose."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ttt3r_ros.pose_graph.acceptance import KnownAnswers
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.pose_graph.memory import LoopMemory
from ttt3r_ros.types import SessionError


def write_graph(path: Path, loops: LoopMemory, path_segments: Sequence[int]) -> None:
    """Write what is known of loops; numbers are exact.

    Args:
        path: the file.
        loops: it is not changed.
        path_segments: for each pose of the session's path, the node that it belongs to.

    Raises:
        OSError: it cannot be written.
    """
    graph = loops.graph
    nodes = [
        {
            "segment": segment,
            "size": graph.size(segment),
            "way_since": loops.way_since[segment],
            "T_map_segment": graph.pose(segment).tolist(),
        }
        for segment in graph.segments
    ]
    content = {
        "nodes": nodes,
        "edges": [_edge_as_json(edge) for edge in graph.edges],
        "path_segments": [int(segment) for segment in path_segments],
        "known_answers": asdict(loops.known),
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")


def read_graph(path: Path) -> tuple[LoopMemory, list[int]]:
    """Read what `write_graph` has written.

    Returns:
        What is known of loops, and the nodes of the path's poses.

    Raises:
        SessionError: there is no such file, or it is damaged; the message names it.
    """
    graph, way_since = PoseGraph(), {}
    try:
        content = json.loads(path.read_text("utf-8"))
        for node in content["nodes"]:
            pose = np.array(node["T_map_segment"], np.float64)
            graph.add_segment(int(node["segment"]), pose, int(node["size"]))
            way_since[int(node["segment"])] = _finite("way_since", node["way_since"])
        for edge in content["edges"]:
            graph.add_edge(_edge_of_json(edge))
        path_segments = [int(segment) for segment in content["path_segments"]]
        answers = content["known_answers"]
        known = KnownAnswers(tuple(map(tuple, answers["right"])), tuple(answers["wrong"]))
    except KeyError as error:
        raise SessionError(f"{path}: damaged: {error} is missing") from error
    except (OSError, TypeError, ValueError) as error:
        raise SessionError(f"{path}: damaged: {error}") from error
    return LoopMemory(graph, way_since, known), path_segments


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name}: must be finite, got {value}")
    return float(value)


def _edge_as_json(edge: Edge) -> dict[str, Any]:
    sigma = edge.log_ratio_sigma
    return {
        "kind": edge.kind.value,
        "first": _end_as_json(edge.first),
        "second": _end_as_json(edge.second),
        "T_first_second": edge.T_first_second.tolist(),
        "covariance": edge.covariance.tolist(),
        "log_ratio": edge.log_ratio,
        "log_ratio_sigma": sigma if math.isfinite(sigma) else None,  # nothing was measured
        "is_believed": bool(edge.is_believed),
    }


def _end_as_json(end: End) -> dict[str, Any]:
    return {
        "segment": end.segment,
        "T_segment_camera": end.T_segment_camera.tolist(),
        "stamp_ns": end.stamp_ns,
    }


def _edge_of_json(edge: Mapping[str, Any]) -> Edge:
    sigma = edge["log_ratio_sigma"]
    return Edge(
        first=_end_of_json(edge["first"]),
        second=_end_of_json(edge["second"]),
        T_first_second=np.array(edge["T_first_second"], np.float64),
        covariance=np.array(edge["covariance"], np.float64),
        kind=EdgeKind(edge["kind"]),
        log_ratio=edge["log_ratio"],
        log_ratio_sigma=math.inf if sigma is None else sigma,
        is_believed=edge["is_believed"],
    )


def _end_of_json(end: Mapping[str, Any]) -> End:
    pose = np.array(end["T_segment_camera"], np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"T_segment_camera: expected finite numbers [4, 4], got {pose.tolist()}")
    stamp_ns = end["stamp_ns"]
    return End(end["segment"], pose, None if stamp_ns is None else int(stamp_ns))
