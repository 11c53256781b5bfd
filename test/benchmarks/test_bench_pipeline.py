# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of the pipeline counts, on a tiny network."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import torch

from benchmarks import bench_pipeline as subject

CPU = torch.device("cpu")


def test_images_follow_each_other_and_come_back():
    size = (64, 48)
    frames = list(islice(subject.film(*size), 120))
    assert {frame.rgb.shape for frame in frames} == {(48, 64, 3)}
    assert [frame.stamp_ns for frame in frames] == [i * 100_000_000 for i in range(120)]
    np.testing.assert_array_equal(frames[118].rgb, frames[0].rgb)
    assert (frames[1].rgb != frames[0].rgb).any()
    assert frames[118].rgb is frames[0].rgb  # rendered once


def test_parts_are_timed_within_the_images_and_the_pipeline_is_left_as_it_was():
    pipeline = subject.make_pipeline("tiny-linear", "float32", CPU, process_all_images=False)
    row = subject.run(pipeline, subject.film(64, 48), images=4)
    assert row["network_image"] == "48x32" and row["images_lost"] == 0
    assert all(row["parts_ms"][part] > 0 for part in subject.PARTS)
    assert row["map_points"] > 0
    assert not hasattr(pipeline._tracker._preprocessor.image, "__wrapped__")
    assert not hasattr(pipeline.integrate, "__wrapped__")


def test_the_program_prints_a_row_for_each_network_dtype_and_camera(capsys):
    words = ["--network", "tiny-linear", "--dtype", "float32", "bfloat16", "--images", "2"]
    subject.main([*words, "--camera", "64x48", "96x48", "--threads", "1", "--json"])
    rows = [*map(json.loads, capsys.readouterr().out.splitlines())]
    found = [(row["dtype"], row["camera"], row["network_image"]) for row in rows]
    assert found == [
        ("float32", "64x48", "48x32"),
        ("float32", "96x48", "48x16"),
        ("bfloat16", "64x48", "48x32"),
        ("bfloat16", "96x48", "48x16"),
    ]
    lines = subject.markdown(rows)
    assert len({line.count("|") for line in lines[:6]}) == 1
