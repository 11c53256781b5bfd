# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of the node counts, and one short run of it."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from preloaded import new_process

from benchmarks import bench_node as subject
from benchmarks.node_watch import WAITING, WAY, parts_of
from ttt3r_ros.config import Config
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.types import Frame

MS = 1_000_000


def moments(*at_ms: float) -> dict[str, int]:
    return {name: round(at * MS) for name, at in zip(WAY, at_ms, strict=True)}


def test_parts_add_up_and_waiting_is_for_the_step_before_alone():
    images = {
        0: moments(1, 2, 3, 43, 44, 45),
        # Received 13 before the step's end, taken 4 after it: these are no waiting.
        20 * MS: moments(30, 47, 48, 88, 89, 91),
        90 * MS: {"received": 91 * MS},  # replaced
    }
    parts = parts_of(images)
    assert parts[subject.TOTAL] == pytest.approx([45, 71])
    assert parts[WAITING] == pytest.approx([0, 13])
    assert parts["queueing"] == pytest.approx([1, 4])
    assert parts["step"] == pytest.approx([40, 40])
    assert parts[subject.REST] == pytest.approx([5, 18])
    each = [values for part, values in parts.items() if part not in (subject.TOTAL, subject.REST)]
    np.testing.assert_allclose(np.sum(each, axis=0), parts[subject.TOTAL])


def test_the_load_is_tracked_like_a_network():
    pipeline = Pipeline.from_config(Config(device="cpu"))
    network = pipeline.model.network
    subject.FixedLoad(network, torch.device("cpu"), 0.003).replace(network)
    messages = subject.film((64, 48), 5.0)
    results = []
    for index in range(30):
        image, _ = messages[index % len(messages)]
        rgb = np.frombuffer(image.data, np.uint8).reshape(48, 64, 3)
        results.append(pipeline.process(Frame(index * 33 * MS, rgb)))
    assert {result.state.name for result in results[3:]} == {"TRACKING"}
    assert min(result.step_s for result in results) > 0.003
    assert results[-1].segment == 2  # it begins new ones as with the network
    xs = [-result.T_odom_camera[1, 3] for result in results]  # right is -y of odom
    np.testing.assert_allclose(xs, 0.5 * np.sin(np.arange(1, 31) / 30) - 0.5 * np.sin(1 / 30))
    assert len(pipeline.map) > 0


def run(start, *words):
    done = subprocess.run(
        start(subject.__file__, *words, "--size", "160x120", "--rate", "10", "--json"),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [*map(json.loads, done.stdout.splitlines())]


def test_a_short_run_counts_every_image_and_all_parts(domain):
    words = "--load-ms 20 --seconds 1 --settle 0.5 --requests 1 --map-points 1000"
    (result,) = run(new_process, *words.split())
    counted = result["images"]
    assert 0 < counted["processed"] <= counted["received"] and counted["lost"] == 0
    assert result["tf_hz"] > 0 and result["cpu"] > 0
    assert set(result["requests_ms"]) == {"reset", "deactivate", "activate"}
    for part in (subject.TOTAL, WAITING, subject.REST, *WAY.values()):
        assert set(result["parts_ms"][part]) == {*subject.QUANTILES, "max"}
    assert result["parts_ms"]["step"]["p50"] >= 20
    for part in ("map: inserting", "map: publishing", "depth: message", "points: publishing"):
        assert result["beside_ms"][part]
    assert "poses/s on /tf" in "\n".join(subject.markdown([result]))


def test_the_map_is_heard_in_the_turns_in_which_somebody_listens(domain, program):
    words = "--map-publishing --load-ms 20 --seconds 1.5 --settle 1 --rounds 1 --map-points 1000"
    silent, *heard = run(program, *words.split())
    assert (silent["phase"], silent["maps"]) == (subject.SILENT, 0)
    assert all(row["maps"] > 0 and row["map_points"] > 1000 for row in heard)
    assert all(row["steps"] > 0 and row["step_ms"]["p50"] >= 20 for row in (silent, *heard))
    assert subject.markdown([silent, *heard])[2].endswith("| 1.00 |")


def test_what_was_noted_counts_where_its_window_is():
    statuses = [{"heard": at, "step_ms": at, "latency_ms": 2.0 * at} for at in (1, 5, 9, 15)]
    heard = {"statuses": statuses, "maps": [(2, 100), (16, 300)]}
    windows = [{"began_ns": 0, "ended_ns": 6}, {"began_ns": 14, "ended_ns": 20}]
    row = subject.publishing("thinned", heard, windows)
    assert (row["steps"], row["maps"], row["map_points"]) == (3, 2, 300)
    assert row["step_ms"]["max"] == 15 and row["latency_ms"]["p50"] == 10
