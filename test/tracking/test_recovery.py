# SPDX-License-Identifier: Apache-2.0
"""Coming back to a place, with the shipped model, after being lost and from a session."""

from __future__ import annotations

import copyreg
from copy import deepcopy
from dataclasses import replace
from functools import cache
from threading import Lock

import numpy as np
import pytest
from revisit import AGAIN, ANOTHER_SEED, IMAGES, MOST_DEG, MOST_M, PERIOD_NS, Room, error

from ttt3r_ros.config import Config, with_values
from ttt3r_ros.geometry import inverse
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.session import made_for, save_session
from ttt3r_ros.types import Frame, SessionError, TrackingState

CONFIG = Config(device="cpu", process_all_images=True)
LOST, TRACKING = TrackingState.LOST, TrackingState.TRACKING


@pytest.fixture(scope="module")
def room() -> Room:
    return Room()


@pytest.fixture(scope="module")
def way(room):
    return room.way()


@pytest.fixture(scope="module")
def followed(way):
    """A function to a pipeline that has gone the way, a copy of the first of its kind."""

    @cache
    def original(**values):
        subject = Pipeline.from_config(with_values(CONFIG, values))
        return subject, [subject.process(view.frame) for view in way]

    def copied(**values):
        subject, results = original(**values)
        return deepcopy(subject, {id(subject.model): subject.model}), results

    # A lock that nobody holds is as good as new.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(copyreg.dispatch_table, type(Lock()), lambda lock: (Lock, ()))
        yield copied


@pytest.fixture(scope="module")
def session(followed, tmp_path_factory):
    """A session's folder, and the results that led to it."""
    subject, results = followed()
    folder = tmp_path_factory.mktemp("sessions") / "one"
    save_session(folder, subject.session(), made_for(CONFIG, subject.model.image_size))
    return folder, results, len(subject.map)


def dark(i):
    return Frame((IMAGES + i) * PERIOD_NS, np.zeros((96, 128, 3), np.uint8))


def test_a_camera_that_was_carried_in_the_dark_to_a_known_place_is_back_in_the_map(
    followed, room, way
):
    subject, results = followed()
    last = results[-1]
    assert last.state is TRACKING and np.array_equal(last.T_map_odom, np.eye(4))
    assert {subject.process(dark(i)).state for i in range(3)} == {LOST}
    # The first image in the light is nothing like the dark, so it is LOST, too.
    first, *views = room.again((IMAGES + 3) * PERIOD_NS, 5)
    assert subject.process(first.frame).state is LOST
    back = [subject.process(view.frame) for view in views]
    assert back[0].boundary_reason.startswith("tracking was lost: contrast")
    assert back[0].boundary_reason.endswith("; relocalized")
    for result, view in zip(back, views, strict=True):
        metres, degrees = error(results[AGAIN].T_map_camera, way[AGAIN], result.T_map_camera, view)
        assert metres < MOST_M and degrees < MOST_DEG
    # odom goes on as if nothing had happened; the correction is the map's.
    np.testing.assert_allclose(back[0].T_odom_camera, last.T_odom_camera, atol=1e-9)
    for before, after, v, w in zip(back, back[1:], views, views[1:], strict=False):
        true = inverse(v.T_world_camera) @ w.T_world_camera
        step = inverse(before.T_odom_camera) @ after.T_odom_camera
        assert np.linalg.norm((inverse(true) @ step)[:3, 3]) < 0.05
    # odom was blind for a while; the map knows where the camera is.
    in_odom, in_map = (
        np.sqrt(np.trace(c[:3, :3])) for c in (back[0].pose_covariance, back[0].map_pose_covariance)
    )
    assert in_map < 0.15 < in_odom
    assert np.linalg.norm(back[0].T_map_odom[:3, 3]) > 0.1
    assert all(np.array_equal(r.T_map_odom, back[0].T_map_odom) for r in back[1:])


def test_a_hand_may_be_in_the_picture_before_a_place_is_recognized(followed, room, way):
    subject, results = followed()
    subject.process(dark(0))
    other = Room(ANOTHER_SEED).again((IMAGES + 1) * PERIOD_NS, 3)
    points, poses = len(subject.map), len(subject.session().trajectory)
    before = [subject.process(view.frame) for view in other]
    assert not any(result.is_localized for result in before)
    # Nothing goes into the map as long as its place there is looked for.
    assert (len(subject.map), len(subject.session().trajectory)) == (points, poses)
    views = room.again((IMAGES + 4) * PERIOD_NS)
    back = [subject.process(view.frame) for view in views]
    found = next(result for result in back if result.boundary_reason.endswith("relocalized"))
    assert found.is_localized and back[-1].is_localized
    metres, degrees = error(
        results[AGAIN].T_map_camera, way[AGAIN], back[-1].T_map_camera, views[-1]
    )
    assert metres < MOST_M and degrees < MOST_DEG
    assert len(subject.session().trajectory) > poses


def test_a_place_is_not_looked_for_for_ever(followed):
    subject, _ = followed()
    subject.process(dark(0))
    views = Room(ANOTHER_SEED).again((IMAGES + 1) * PERIOD_NS, 8)
    placed = [subject.process(view.frame).is_localized for view in views]
    assert (
        placed == [False] * 5 + [True] * 3
    )  # the first is LOST, four were no use, so is the fifth


def test_a_known_scale_goes_on_after_coming_back(followed, room):
    """Samples of the scale are in the unit of the state that is left, so they are taken anew."""
    values = {
        "scale_source": "camera_height",
        "camera_height_m": 1.2,
        "segment.scale_from": "boundary",
    }
    subject, results = followed(**values)
    assert results[-1].scale != 1.0
    subject.process(dark(0))
    back = [subject.process(view.frame) for view in room.again((IMAGES + 1) * PERIOD_NS, 3)]
    found = next(result for result in back if result.boundary_reason.endswith("relocalized"))
    taken = {keyframe.scale for keyframe in subject.session().keyframes}
    assert 1.0 not in taken  # places seen before the scale was known are not remembered
    assert found.scale in taken
    assert np.isnan(back[-1].scale_log_spread)


def test_without_keyframes_a_lost_camera_goes_on_from_the_last_pose(followed, room):
    subject, _ = followed(**{"recovery.keyframes": 0})
    subject.process(dark(0))
    for view in room.again((IMAGES + 1) * PERIOD_NS, 2):
        result = subject.process(view.frame)
    assert (
        result.boundary_reason.startswith("tracking was lost")
        and "relocalized" not in result.boundary_reason
    )
    assert np.array_equal(result.T_map_odom, np.eye(4))
    with pytest.raises(SessionError, match="no place is remembered yet"):
        subject.session()


def test_another_room_is_not_taken_for_a_known_place(followed):
    subject, _ = followed()
    subject.process(dark(0))
    other = Room(ANOTHER_SEED).again((IMAGES + 1) * PERIOD_NS, 3)
    for view in other:
        result = subject.process(view.frame)
        assert "relocalized" not in result.boundary_reason
        assert np.array_equal(result.T_map_odom, np.eye(4))
    assert result.state is not LOST


def test_from_a_session_the_same_map_goes_on_where_a_view_is_recognized(room, way, session):
    folder, results, points = session
    subject = Pipeline.from_config(replace(CONFIG, session=str(folder)))
    assert len(subject.map) == points
    views = room.again(10**15)
    for result, view in zip((subject.process(v.frame) for v in views), views, strict=True):
        metres, degrees = error(results[AGAIN].T_map_camera, way[AGAIN], result.T_map_camera, view)
        assert metres < MOST_M and degrees < MOST_DEG
    assert result.state is TRACKING
    assert len(subject.map) >= points
    deviation = np.sqrt(np.trace(result.map_pose_covariance[:3, :3]))
    assert 0.02 < deviation < 0.3


def test_from_a_session_nothing_is_tracked_in_another_room(session):
    folder, _, points = session
    subject = Pipeline.from_config(replace(CONFIG, session=str(folder)))
    for view in Room(ANOTHER_SEED).again(10**15, 3):
        result = subject.process(view.frame)
        assert result.state is LOST
        assert result.reason == "no place of the session has been recognized yet"
        assert np.trace(result.map_pose_covariance[:3, :3]) > 1e5
    assert len(subject.map) == points


def test_a_session_keeps_its_places_however_few_may_be_remembered(session):
    folder = str(session[0])
    one, all_of_them = (
        Pipeline.from_config(with_values(CONFIG, {"session": folder, "recovery.keyframes": most}))
        for most in (0, 64)
    )
    assert len(one.session().keyframes) == len(all_of_them.session().keyframes) > 3


def test_a_session_may_be_in_the_home_folder(session, monkeypatch):
    monkeypatch.setenv("HOME", str(session[0].parent))
    assert len(Pipeline.from_config(replace(CONFIG, session="~/one")).map) == session[2]


def test_a_session_goes_on_to_be_saved(room, session, tmp_path):
    folder, results, _ = session
    subject = Pipeline.from_config(replace(CONFIG, session=str(folder)))
    for view in room.again(10**15):
        subject.process(view.frame)
    stamps = [stamp_ns for stamp_ns, _ in subject.session().trajectory]
    assert stamps[: len(results)] == [result.stamp_ns for result in results]
    assert len(stamps) == len(results) + 4


def test_a_reset_leaves_the_session_behind(room, session):
    subject = Pipeline.from_config(replace(CONFIG, session=str(session[0])))
    subject.reset("asked")
    result = subject.process(room.again(10**15, 1)[0].frame)
    assert result.state is TrackingState.INITIALIZING and not result.boundary_reason
    assert len(subject.map) > 0
    with pytest.raises(SessionError):
        subject.session()


def test_the_mount_of_the_camera_may_be_known_after_the_session(room, session):
    subject = Pipeline.from_config(replace(CONFIG, session=str(session[0])))
    place = np.eye(4)
    place[:3, 3] = 1.0, 2.0, 3.0
    subject.place_first_camera(place)
    result = subject.process(room.again(10**15, 1)[0].frame)
    assert result.boundary_reason == "relocalized"
    np.testing.assert_allclose(result.T_odom_camera, place, atol=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"update_rule": "cut3r"}, "update_rule: must be 'cut3r' .* made with 'ttt3r'"),
        ({"map.voxel_size_m": 0.1}, "map.voxel_size_m: must be 0.05"),
        ({"session": "nowhere"}, "nowhere: no session"),
    ],
)
def test_a_session_that_does_not_fit_is_refused(session, values, message):
    config = with_values(replace(CONFIG, session=str(session[0])), values)
    with pytest.raises(SessionError, match=message):
        Pipeline.from_config(config)
