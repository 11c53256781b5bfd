# SPDX-License-Identifier: Apache-2.0
"""Two sessions of a simulated room, by the shipped model, are one room once they are merged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from revisit import ANOTHER_SEED, MOST_DEG, MOST_M, PERIOD_NS, Room, View, error

from ttt3r_ros.config import Config
from ttt3r_ros.loading import load_model
from ttt3r_ros.merge import merge_sessions
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.session import Session, load_session, made_for, save_session

CONFIG = Config(device="cpu", process_all_images=True)
LATER_NS = 10**12
# The second camera goes along a part of the first one's way, a little later at each place.
FIRST_AGAIN, AGAIN, LATE_S = 20, 45, 0.03


@pytest.fixture(scope="module")
def model():
    return load_model(CONFIG)


@pytest.fixture(scope="module")
def room() -> Room:
    return Room()


def again(room: Room) -> list[View]:
    """From the middle of the way on."""
    return [
        room.view(i * PERIOD_NS / 1e9 + LATE_S, LATER_NS + i * PERIOD_NS)
        for i in range(FIRST_AGAIN, FIRST_AGAIN + AGAIN)
    ]


def session(model, views: list[View], folder: Path) -> Session:
    """As it comes from the disk."""
    pipeline = Pipeline(model, CONFIG)
    for view in views:
        pipeline.process(view.frame)
    pipeline.finish()
    owner = made_for(CONFIG, model.image_size)
    save_session(folder, pipeline.session(), owner)
    return load_session(folder, owner, model.network.initial_state(), CONFIG.map.voxel_size_m)


@pytest.fixture(scope="module")
def first(model, room, tmp_path_factory) -> Session:
    return session(model, room.way(), tmp_path_factory.mktemp("room") / "first")


def test_a_second_session_comes_to_lie_where_the_first_one_has_the_place(
    model, room, first, tmp_path
) -> None:
    views = again(room)
    second = session(model, views, tmp_path / "second")
    merged, between = merge_sessions(first, second, model.network, CONFIG) or pytest.fail("apart")
    assert len({loop.second.stamp_ns for loop in between}) >= 2
    views_by_stamp = {view.frame.stamp_ns: view for view in (*room.way(), *views)}
    path = dict(merged.trajectory)
    off = []
    for stamp_ns, T_map_camera in second.trajectory:
        then_ns = stamp_ns - LATER_NS
        now, then = views_by_stamp[stamp_ns], views_by_stamp[then_ns]
        off.append(error(path[then_ns], then, path[stamp_ns], now))
        assert np.linalg.norm(T_map_camera - path[stamp_ns]) > 0.1  # it began elsewhere
    metres, degrees = np.median(off, axis=0)
    assert metres < MOST_M and degrees < MOST_DEG, (metres, degrees)
    # One surface, not two: most of the second one's voxels were there already.
    voxels = [len(s.map_tensors["key"]) for s in (first, second, merged)]
    assert voxels[2] < voxels[0] + 0.8 * voxels[1]


def test_two_rooms_stay_two(model, first, tmp_path) -> None:
    other = session(model, again(Room(ANOTHER_SEED)), tmp_path / "other")
    assert merge_sessions(first, other, model.network, CONFIG) is None
