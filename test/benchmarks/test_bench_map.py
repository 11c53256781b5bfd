# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of the map compares, and what it counts, on tiny images."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import bench_map as subject
from ttt3r_ros.mapping.voxel_map import VoxelMap


def missing_peer() -> str:
    """Why the peers cannot be used here: no wheel for this system, or a library of it missing."""
    try:
        subject.KissPoints()
        subject.open3d()
    except subject.PeerMissing as error:
        return str(error)
    return ""


WHY_NOT = missing_peer()
needs_peers = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

CPU = torch.device("cpu")
TINY = subject.Plan(sizes=(3000,), strides=(2,), images=2, rounds=1, width=64, full=4000)


def means(contestant, images):
    for image in images:
        contestant.insert(image)
    points, colours = contestant.cloud()
    order = np.lexsort(np.floor(points / subject.VOXEL_M).T)
    return points[order], colours[order]


@needs_peers
def test_those_that_do_the_same_work_have_the_same_result():
    images = subject.film(3, 1, 64)
    ours = means(subject.Ours(20_000, CPU), images)
    assert len(ours[0]) > 3000
    for name in subject.SAME_WORK:
        points, colours = means(subject.PEERS[name](20_000), images)
        np.testing.assert_allclose(ours[0], points, atol=1e-5)
        np.testing.assert_allclose(ours[1], colours, atol=0.51)  # ours are rounded


@needs_peers
def test_the_other_averages_agree_on_a_single_image_without_weights():
    (image,) = subject.film(1, 1, 64)
    image = replace(image, weights=torch.ones_like(image.weights))
    ours = means(subject.Ours(20_000, CPU), [image])
    for name in ("Open3D HashMap, points", "Open3D PointCloud"):
        points, colours = means(subject.PEERS[name](20_000), [image])
        np.testing.assert_allclose(ours[0], points, atol=1e-5)
        np.testing.assert_allclose(ours[1], colours, atol=0.51)


@needs_peers
def test_the_grid_finds_the_same_surface():
    images = subject.film(3, 1, 128)
    grid = subject.PEERS["Open3D VoxelBlockGrid"](20_000)
    for image in images:
        grid.insert(image)
    found = grid.grid.extract_point_cloud(1.0).point.positions.numpy()
    points = torch.cat([image.points for image in images])
    distances = torch.cdist(torch.from_numpy(found[::20]), points).amin(dim=1)
    assert len(found) > 1000 and distances.median() < 0.025


def test_the_points_of_an_image_lie_in_its_depth():
    for stride in (1, 2):
        (image,) = subject.film(1, stride, 64)
        T = torch.from_numpy(np.linalg.inv(image.T_world_camera)).float()
        seen = image.points @ T[:3, :3].T + T[:3, 3]
        pixels = seen @ torch.from_numpy(image.lens.matrix()).float().T
        pixels = (pixels[:, :2] / pixels[:, 2:]).reshape(image.lens.height, image.lens.width, 2)
        assert (pixels[3, 5] - torch.tensor([5.0, 3.0])).abs().max() < 1e-3
        torch.testing.assert_close(seen[:, 2], image.depth_m.reshape(-1))


def test_cells_of_other_places_are_distinct_and_elsewhere():
    images = subject.film(2, 2, 64)
    cells = subject.elsewhere(images, 50_000)
    assert len(np.unique(cells, axis=0)) == 50_000
    ours = subject.Ours(100_000, CPU)
    ours.fill(cells)
    assert len(ours.map) == 50_000
    ours.insert(images[0])
    alone = subject.Ours(100_000, CPU)
    alone.insert(images[0])
    assert len(ours.map) == 50_000 + len(alone.map)


def test_a_map_that_grows_beyond_its_bound_is_found_out():
    cells = subject.elsewhere(subject.film(1, 2, 64), 1000)
    assert not subject.max_points_exceeded(VoxelMap(subject.VOXEL_M, 500, CPU), cells, 500)
    assert subject.max_points_exceeded(VoxelMap(subject.VOXEL_M, 600, CPU), cells, 500)
    with pytest.raises(ValueError, match="500 cells say nothing about a bound of 500"):
        subject.max_points_exceeded(VoxelMap(subject.VOXEL_M, 500, CPU), cells[:500], 500)


def test_the_speedup_is_that_against_the_best_peer_in_the_worst_row():
    def row(**medians):
        times = {name: {"median_ms": value} if value else None for name, value in medians.items()}
        return {"times": times}

    rows = [
        row(**{subject.OURS: 2.0, "a": 8.0, "b": 6.0}),
        row(**{subject.OURS: 2.0, "a": 5.0, "b": None}),
    ]
    assert subject.speedup(rows, ["a", "b"]) == 2.5
    assert subject.speedup(rows, ["b"]) == 3.0
    assert subject.speedup(rows[1:], ["b"]) is None


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(subject, "QUICK", TINY)


@needs_peers
def test_the_command_prints_one_json_object_and_nothing_else(tiny, capfd):
    subject.main(["--quick", "--json", "--threads", "1"])
    result = json.loads(capfd.readouterr().out)
    assert result["speedup_vs_best_peer"] > 0
    assert result["bytes_per_point"] <= 64
    assert result["max_points_exceeded"] is False
    assert result["hardware"]["threads"] == 1
    known, full = result["rows"]
    assert (known["voxels"], known["stride"], known["points"]) == (3000, 2, 32 * 24)
    assert known["times"].keys() == {subject.OURS, *subject.PEERS}
    assert all(times["runs"] >= 1 for times in known["times"].values())
    assert [name for name, times in full["times"].items() if times] == [subject.OURS]
    assert {"date", "commit", "versions", "speedup_vs"} <= result.keys()


def test_a_peer_that_is_not_there_is_an_error_that_names_what_to_install(tiny, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "kiss_icp.mapping", None)
    with pytest.raises(SystemExit) as raised:
        subject.main(["--quick", "--json", "--threads", "1"])
    captured = capfd.readouterr()
    assert raised.value.code and captured.out == ""
    assert "KISS-ICP cannot be used here" in captured.err
    assert "ttt3r_ros[benchmark]" in captured.err and "--without-peers" in captured.err


def test_without_peers_only_our_numbers_are_there(tiny, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    subject.main(["--quick", "--json", "--threads", "1", "--without-peers"])
    captured = capfd.readouterr()
    result = json.loads(captured.out)
    assert result["speedup_vs_best_peer"] is None
    for row in result["rows"]:
        assert [name for name, times in row["times"].items() if times] == [subject.OURS]
    assert "peers: not measured" in captured.err


@needs_peers
def test_the_table_has_a_row_for_each_measurement_and_its_circumstances(tiny, capfd):
    subject.main(["--quick", "--threads", "1"])
    text = capfd.readouterr().out
    assert text.count("| known room |") == 1 and text.count("| new places, map full |") == 1
    assert "threads: 1" in text and "commit" in text and "open3d-cpu 0" in text
