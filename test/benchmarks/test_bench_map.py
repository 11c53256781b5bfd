# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of the map compares, and what it counts, on tiny images."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import bench_map as subject
from benchmarks import map_images

CPU = torch.device("cpu")


def plain_means(images):
    """The same work in plain Python: means over images of the means of their points."""
    sums = defaultdict(lambda: np.zeros(7))
    for image in images:
        ones = defaultdict(lambda: np.zeros(8))
        cells = map_images.cells_of(image.points).tolist()
        rows = zip(cells, image.points, image.colours, image.weights, strict=True)
        for cell, point, colour, weight in rows:
            ones[tuple(cell)] += (*(weight * point), *(weight * colour), weight, 1.0)
        for cell, total in ones.items():
            sums[cell] += total[:7] / total[7]
    means = np.array([total[:6] / total[6] for total in sums.values()])
    return means[:, :3], means[:, 3:]


def test_ours_has_the_means_over_images_of_the_means_of_points():
    images = subject.film(3, 1, 32)
    ours = subject.Ours(20_000, CPU)
    for image in images:
        ours.insert(image)
    assert subject.equal_clouds(ours.cloud(), plain_means(images))
    assert not subject.equal_clouds(ours.cloud(), plain_means(images[:2]))
    points, colours = plain_means(images)
    assert not subject.equal_clouds(ours.cloud(), (points + 1e-3, colours))


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
    ours, alone = subject.Ours(100_000, CPU), subject.Ours(100_000, CPU)
    ours.fill(cells)
    assert len(ours.map) == 50_000
    for one in (ours, alone):
        one.insert(images[0])
    assert len(ours.map) == 50_000 + len(alone.map)


def test_the_speedup_is_that_of_the_worst_row_at_the_default_stride():
    def row(peer_ms, stride=subject.DEFAULT_STRIDE):
        times = {subject.OURS: {"median_ms": 2.0}, "a": peer_ms and {"median_ms": peer_ms}}
        return {"times": times, "stride": stride}

    assert subject.speedup([row(8.0), row(5.0), row(1.0, stride=4), row(None)], "a") == 2.5
    assert subject.speedup([row(None)], "a") is None


def test_without_peers_there_is_a_row_for_each_measurement(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    words = ["--plan", "tiny", "--threads", "1", "--without-peers"]
    subject.main([*words, "--json"])
    known, full = map(json.loads, capsys.readouterr().out.splitlines())
    assert (known["scene"], known["voxels"], known["points"]) == ("known room", 3000, 32 * 24)
    assert full["scene"] == "new places, map full"
    for row in (known, full):
        assert row["times"].keys() == {subject.OURS, *subject.PEERS}
        assert [name for name, times in row["times"].items() if times] == [subject.OURS]
    text = "\n".join(subject.markdown([known, full]))
    assert text.count("| known room | 2 |") == 1 and "not measured" in text


def test_a_peer_that_is_not_there_is_an_error_that_names_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(SystemExit) as raised:
        subject.main(["--plan", "tiny", "--threads", "1"])
    captured = capsys.readouterr()
    assert raised.value.code and captured.out == ""
    assert "Open3D cannot be used here" in captured.err
    assert "ttt3r_ros[benchmark]" in captured.err and "--without-peers" in captured.err


def test_a_peer_with_other_means_is_not_taken_for_one_that_does_the_same_work(monkeypatch):
    class Other(subject.Ours):
        def insert(self, image):
            super().insert(replace(image, weights=torch.ones_like(image.weights)))

    peers = {subject.SAME_WORK: lambda _: subject.Ours(20_000, CPU)}
    monkeypatch.setattr(subject, "PEERS", peers)
    subject.check_same_work(32)
    peers[subject.SAME_WORK] = lambda _: Other(20_000, CPU)
    with pytest.raises(RuntimeError, match="other means"):
        subject.check_same_work(32)
