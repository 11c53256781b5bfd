# SPDX-License-Identifier: Apache-2.0
"""What `check` says about a file of weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from checkpoint_files import TINY

from ttt3r_ros.check import check, format_report, picture
from ttt3r_ros.network.convert import write_checkpoint
from ttt3r_ros.network.model import Network
from ttt3r_ros.types import CheckpointError


def write(path, weights, licence="Apache-2.0"):
    write_checkpoint(
        path,
        weights,
        config=TINY,
        image_size=64,
        licence=licence,
        settings={"segment.reset_interval": 24},
        dtype="float16",
    )
    return path


def test_a_good_file_is_described_and_timed(tmp_path):
    torch.manual_seed(0)
    weights = Network(TINY).state_dict()
    path = write(tmp_path / "tiny.safetensors", weights)
    report = check(path)
    assert report.finite
    assert report.checkpoint.config == TINY
    assert report.parameters == sum(tensor.numel() for tensor in weights.values())
    assert report.file_bytes == path.stat().st_size
    assert report.image == (64, 48)
    assert 0 < report.step_s < math.inf
    text = format_report(report)
    for part in (str(path), "float16", "Apache-2.0", "64 x 48", "segment.reset_interval=24"):
        assert part in text
    assert f"{report.parameters:,}" in text
    assert "NOT FINITE" not in text


def test_weights_that_give_no_numbers_are_said_to(tmp_path):
    torch.manual_seed(0)
    weights = Network(TINY).state_dict()
    weights["downstream_head.proj.fc2.bias"] += 60000.0  # the point's distance grows as exp of it
    report = check(write(tmp_path / "wild.safetensors", weights))
    assert not report.finite
    assert "NOT FINITE" in format_report(report)


def test_a_missing_file_is_an_error_not_a_report(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        check(tmp_path / "absent.safetensors")


def test_the_built_in_image_is_always_the_same_and_not_flat():
    image = picture()
    assert image.shape == (480, 640, 3) and image.dtype == np.uint8
    assert np.array_equal(image, picture())
    assert image[:240].std() > 20 and image[240:].std() > 40
