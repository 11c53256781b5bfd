# SPDX-License-Identifier: Apache-2.0
"""Edges from what tracking and relocalization say: the measured pose and how wrong it may be."""

from __future__ import annotations

import numpy as np

from ttt3r_ros.geometry import Transform, Vector, inverse, transform
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.relocalization.relocalize import Relocalization
from ttt3r_ros.tracking.covariance import moved, relocalized_covariance
from ttt3r_ros.types import Covariance, TrackedView

# What is added to the standard deviations of a recognized place for each metre, and for each depth,
# between the two views. Errors for each axis were
# 0.04 m and 0.013 rad up to 0.2 m, 0.12 m and 0.043 rad at 0.85 m, with a depth of 2.5 m (142 right
# answers in simulated rooms 900104, 900105, 900107 and 900108).
_PLACE_BY_DISTANCE, _TURN_BY_DISTANCE = 0.11, 0.1
# How many times the tracker's own standard deviations a segment's beginning is given: drift comes
# in bursts that these do not know of. With 1 the gate refused a sixth of true loops in simulated
# rooms (900104 to 900109), with 1.5 a hundredth.
_BURSTS = 1.5
_LEAST = np.diag([1e-8] * 6)  # so that covariances can be inverted
_LEAST_TOLD = 0.05  # m and rad: nobody who sets a pose knows better where the camera is
# Of a beginning of which nothing is said.
_UNKNOWN: Covariance = np.diag([100.0] * 3 + [np.pi**2] * 3)


def boundary_edge(before: TrackedView, view: TrackedView) -> Edge:
    """How a segment stands to the one before, by odom, which never moves.

    Args:
        before: the last image of the segment before.
        view: the first image of the segment, with the covariance of its beginning.
    """
    covariance = _UNKNOWN
    if view.begin_covariance is not None:
        # About odom's axes at the camera; the edge wants the segment's own, at its origin.
        lever = before.T_odom_camera[:3, 3] - view.T_odom_segment[:3, 3]
        at_origin = moved(view.begin_covariance, transform(np.eye(3), lever))
        covariance = _BURSTS**2 * _turned(at_origin, view.T_odom_segment[:3, :3].T)
    return Edge(
        End(before.segment),
        End(view.segment),
        inverse(before.T_odom_segment) @ view.T_odom_segment,
        covariance + _LEAST,
        EdgeKind.BOUNDARY,
    )


def unknown_edge(graph: PoseGraph, first: int, second: int) -> Edge:
    """Nobody knows how the camera came from one segment to another, as between two streams.

    It says next to nothing and is never doubted, so the two are solved together whatever becomes
    of the loops between them; they are two pieces until something else ties them.

    Args:
        graph: in which both stand where the map has them.
        first: a node.
        second: another one.
    """
    T_first_second = inverse(graph.pose(first)) @ graph.pose(second)
    return Edge(End(first), End(second), T_first_second, _UNKNOWN, EdgeKind.BOUNDARY)


def loop_edge(
    graph: PoseGraph, view: TrackedView, found: Relocalization, doubt: float = 1.0
) -> Edge:
    """What a relocalization says of an image and a keyframe.

    Args:
        graph: in which both stand where the map has them.
        view: the image.
        found: the answer.
        doubt: how many times the usual errors are to be expected.
    """
    keyframe = found.keyframe
    T_keyframe_camera = inverse(keyframe.T_map_camera) @ found.T_map_camera
    distance_m = float(np.linalg.norm(T_keyframe_camera[:3, 3]))
    return Edge(
        graph.end(keyframe.segment, keyframe.T_map_camera, keyframe.stamp_ns),
        graph.end(view.segment, view.T_map_camera, view.stamp_ns),
        T_keyframe_camera,
        loop_covariance(keyframe.depth_m, distance_m, doubt),
        EdgeKind.LOOP,
    )


def relocalized_edge(graph: PoseGraph, view: TrackedView, segment: int) -> Edge:
    """Coming back after being lost: the image stands where a place of another segment says."""
    return Edge(
        graph.end(segment, view.T_map_camera),
        graph.end(view.segment, view.T_map_camera),
        np.eye(4),
        loop_covariance(view.depth_m, distance_m=0.0),
        EdgeKind.LOOP,
    )


def told_edge(graph: PoseGraph, view: TrackedView, covariance: Covariance) -> Edge:
    """Somebody has said where an image's camera stands in the map.

    Args:
        graph: in which the image stands where it was said.
        view: the image; its segment is not the graph's first one, which is the map.
        covariance: [6, 6] of that, about the map's axes.
    """
    first = graph.segments[0]
    in_camera = _turned(covariance, view.T_map_camera[:3, :3].T)
    return Edge(
        End(first),
        graph.end(view.segment, view.T_map_camera),
        inverse(graph.pose(first)) @ view.T_map_camera,
        in_camera + _LEAST_TOLD**2 * np.eye(6),
        EdgeKind.ODOMETRY,
    )


def loop_covariance(depth_m: float, distance_m: float, doubt: float = 1.0) -> Covariance:
    """The covariance [6, 6] of a recognized place, about the camera's axes.

    Args:
        depth_m: a typical depth.
        distance_m: between the two views.
        doubt: how many times the usual errors are to be expected.
    """
    share = distance_m / depth_m if np.isfinite(depth_m) and depth_m > 0 else distance_m
    place, turn = _PLACE_BY_DISTANCE * distance_m, _TURN_BY_DISTANCE * share
    by_distance = np.diag([place**2] * 3 + [turn**2] * 3)
    return doubt**2 * (relocalized_covariance(depth_m) + by_distance) + _LEAST


def about_map_axes(covariance: Covariance, T_map_camera: Transform) -> Covariance:
    """Turn a covariance [6, 6] in a camera's axes to those of the map, as ROS has it."""
    return _turned(covariance, T_map_camera[:3, :3])


def _turned(covariance: Covariance, rotation: Vector) -> Covariance:
    return moved(covariance, transform(rotation, np.zeros(3)))
