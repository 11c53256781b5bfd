# SPDX-License-Identifier: Apache-2.0
"""Two saved sessions of one place become one session, by the same loops as within a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttt3r_ros.config import Config
from ttt3r_ros.io.trajectory import BoundedTrajectory
from ttt3r_ros.loading import load_model
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.network.model import Network
from ttt3r_ros.pose_graph.exchange import what_moves
from ttt3r_ros.pose_graph.graph import Edge
from ttt3r_ros.pose_graph.joining import Joined, Joiner, Part, images_of
from ttt3r_ros.pose_graph.memory import LoopMemory
from ttt3r_ros.relocalization.keyframes import Keyframe, KeyframeStore
from ttt3r_ros.session import (
    MAX_POSES,
    Session,
    check_target,
    load_session,
    made_for,
    save_session,
)
from ttt3r_ros.types import MapMoves, SessionError


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """What two sessions came to.

    Attributes:
        loops: between the two that are believed.
        images: of the second session that they are about.
    """

    loops: int
    images: int
    keyframes: int
    poses: int
    voxels: int


def merge(first: Path, second: Path, output: Path, config: Config) -> MergeSummary:
    """Write one session of two, in the map's frame of the first, whole or not at all.

    Args:
        first: the folder of a session.
        second: that of another one, taken to be the later.
        output: folder to write; a session that is there is replaced.
        config: with the weights of both, and bounds for what is kept.

    Raises:
        CheckpointError: the file of weights cannot be used.
        ConfigError: the device does not exist, or cannot what the settings want of it.
        SessionError: a session cannot be used with these settings, they have no place in common
            that is recognized, or `output` is something else. Nothing is written then.
        OSError: a file cannot be read or written.
    """
    check_target(output)
    model = load_model(config)
    owner = made_for(config, model.image_size)
    state = model.network.initial_state().to("cpu")
    one, other = (
        load_session(folder, owner, state, config.map.voxel_size_m, model.device)
        for folder in (first, second)
    )
    made = merge_sessions(one, other, model.network, config)
    if made is None:
        raise SessionError(
            f"{second}: no place of {first} is recognized in enough of its "
            f"{len(other.keyframes)} keyframes; nothing is written"
        )
    session, between = made
    save_session(output, session, owner)
    return MergeSummary(
        loops=len(between),
        images=images_of(between),
        keyframes=len(session.keyframes),
        poses=len(session.trajectory),
        voxels=len(session.map_tensors["key"]),
    )


def merge_sessions(
    one: Session, other: Session, network: Network, config: Config
) -> tuple[Session, Sequence[Edge]] | None:
    """Return both as one, in the map's frame of the first, and the loops that tie them.

    Args:
        one: as `load_session` returns it, with its keyframes on the network's device.
        other: likewise.
        network: that made their keyframes.
        config: with bounds for what is kept, and the settings of loops.

    Returns:
        None: too few places of the first are recognized in the second.
    """
    count = len(other.loops.graph)  # whose segments are the later ones
    one = one.renumbered({segment: segment - count for segment in one.loops.graph.segments})
    parts = Part(one.loops, one.keyframes), Part(other.loops, other.keyframes)
    joined = Joiner(network, *parts, config.loop).join()
    return None if joined is None else (_merged(one, other, joined, config), joined.between)


def _merged(one: Session, other: Session, joined: Joined, config: Config) -> Session:
    """Move everything where it shall be, and keep what there is room for."""
    graph = joined.loops.graph
    numbers = {}
    if len(graph) > config.loop.max_segments:
        numbers = graph.merge(config.loop.max_segments)
    moves = what_moves(joined.T_by_segment, numbers)
    keyframes = _kept([*one.keyframes, *other.keyframes], moves, config.recovery.keyframes)
    path = BoundedTrajectory(MAX_POSES)
    for session in (one, other):
        for pose, segment in zip(session.trajectory, session.path_segments, strict=True):
            path.append(*pose, segment)
    path.move(moves.T_by_segment, moves.numbers)
    voxels, later = (
        VoxelMap.from_tensors(session.map_tensors, config.map.max_points)
        for session in (one, other)
    )
    for part in (voxels, later):
        part.move(moves.T_by_segment)
        part.relabel(moves.numbers)
    voxels.take_in(later)
    way_since = {segment: joined.loops.way_since[segment] for segment in graph.segments}
    loops = LoopMemory(graph, way_since, joined.loops.known)
    return Session(keyframes, voxels.to_tensors(), path.poses(), path.segments(), loops)


def _kept(keyframes: Sequence[Keyframe], moves: MapMoves, most: int) -> Sequence[Keyframe]:
    """Those most apart, where they have moved to."""
    every = KeyframeStore(len(keyframes))
    every.restore(keyframes)
    every.move(moves.T_by_segment, moves.numbers)
    kept = KeyframeStore(max(1, most))
    kept.restore(every.keyframes)
    return kept.keyframes
