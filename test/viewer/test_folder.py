# SPDX-License-Identifier: Apache-2.0
"""What a run has written, on the page."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ttt3r_ros.geometry import transform
from ttt3r_ros.io.point_cloud import CLOUD_WRITERS
from ttt3r_ros.io.trajectory import TumWriter
from ttt3r_ros.types import ViewError
from ttt3r_ros.viewer.folder import FolderView, read_results

POINTS = np.arange(12, dtype=np.float32).reshape(4, 3)
COLOURS = np.arange(12, dtype=np.uint8).reshape(4, 3)


@pytest.fixture
def folder(tmp_path):
    """A map, a path of three poses, and the depth of the second one: 2 m."""
    CLOUD_WRITERS["ply"](tmp_path / "map.ply", POINTS, COLOURS)
    with TumWriter(tmp_path / "trajectory.tum") as trajectory:
        for i in range(3):
            trajectory.append(10**9 + i * 10**8, transform(np.eye(3), (i, 0, 0)))
    (tmp_path / "depth").mkdir()
    depth = np.full((30, 40), 2000, np.uint16)
    cv2.imwrite(str(tmp_path / "depth" / "1100000000.png"), depth)
    return tmp_path


def test_map_path_and_first_pose_are_shown(folder, page, browser):
    FolderView(page, read_results(folder))
    browser.wait(lambda b: b.things.get("/camera", {}).get("visible") and "3 poses" in b.text)
    np.testing.assert_array_equal(browser.things["/map"]["points"], POINTS)
    np.testing.assert_array_equal(browser.things["/map"]["colors"], COLOURS)
    assert len(browser.things["/path"]["points"]) == 4
    assert "4 points" in browser.text
    assert "3 poses, 2.00 m" in browser.text


def test_the_camera_moves_to_a_pose_with_its_depth(folder, page, browser):
    view = FolderView(page, read_results(folder))
    view.timeline.index = 1
    view.step()
    browser.wait(lambda b: any(name.startswith("Depth, 2 m") for name in b.panel))
    browser.wait(lambda b: b.things["/camera"]["position"][0] == 1)
    browser.wait(lambda b: "0.10 s" in b.text)


def test_playing_takes_as_long_as_the_recording_and_begins_again(folder, page):
    stamps_ns = np.array([0, 0.1, 0.5]) * 1e9
    view = FolderView(page, replace(read_results(folder), stamps_ns=stamps_ns.astype(np.int64)))
    view.timeline.plays = True
    shown = []
    for _ in range(8):
        view.step()
        shown.append(view.timeline.index)
    assert shown == [1, 1, 1, 1, 2, 0, 1, 1]  # every 0.1 s


@pytest.mark.parametrize("missing", ["map.ply", "trajectory.tum"])
def test_one_of_map_and_path_is_enough(folder, page, browser, missing):
    (folder / missing).unlink()
    FolderView(page, read_results(folder))
    expected = "0 points" if missing == "map.ply" else "0 poses"
    browser.wait(lambda b: expected in b.text)


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ViewError, match=f"{tmp_path}: neither map.ply nor map.pcd nor traj"):
        read_results(tmp_path)


def test_a_damaged_map_is_named(folder):
    data = (folder / "map.ply").read_bytes()
    (folder / "map.ply").write_bytes(data[:-1])
    with pytest.raises(ViewError, match=r"map\.ply: .*4 points announced, 59 bytes there"):
        read_results(folder)


def test_a_damaged_path_is_named(folder):
    (folder / "trajectory.tum").write_text("1.0 nonsense\n")
    with pytest.raises(ViewError, match=r"trajectory\.tum, line 1"):
        read_results(folder)
