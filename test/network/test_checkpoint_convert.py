# SPDX-License-Identifier: Apache-2.0
"""Writing files of weights: whole or not at all, and the same network when read back."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import pytest
import torch
from checkpoint_files import TINY, tiny_tensors, write_official

from ttt3r_ros.network.checkpoint import build_network, load_network, read_checkpoint
from ttt3r_ros.network.convert import convert, write_checkpoint
from ttt3r_ros.types import CheckpointError

IMAGE = torch.linspace(-1, 1, 3 * 32 * 48).reshape(1, 3, 32, 48)


@pytest.fixture
def official(tmp_path):
    return write_official(tmp_path / "tiny.pth")


def outputs(network):
    state = network.initial_state()
    for _ in range(2):
        state, prediction = network.step(state, IMAGE)
    values = [getattr(prediction, entry.name) for entry in fields(prediction)]
    return [state.tokens, state.memory, *(value for value in values if value is not None)]


def test_a_converted_file_gives_the_same_outputs_to_the_bit(official, tmp_path):
    convert(official, tmp_path / "tiny.safetensors")
    expected = outputs(load_network(official))
    for a, b in zip(expected, outputs(load_network(tmp_path / "tiny.safetensors")), strict=True):
        assert torch.equal(a, b)


def test_a_converted_file_says_where_it_is_from_and_under_which_licence(official, tmp_path):
    convert(official, tmp_path / "tiny.safetensors")
    checkpoint = read_checkpoint(tmp_path / "tiny.safetensors")
    digest = hashlib.sha256(official.read_bytes()).hexdigest()
    assert checkpoint.source == f"tiny.pth sha256:{digest}"
    assert "non-commercial" in checkpoint.licence
    assert checkpoint.settings == {"segment.reset_interval": 100}
    assert checkpoint.config == TINY
    assert checkpoint.image_size == 64


def test_a_converted_file_can_be_converted_again(official, tmp_path):
    convert(official, tmp_path / "first.safetensors")
    convert(tmp_path / "first.safetensors", tmp_path / "second.safetensors", dtype="float16")
    again = read_checkpoint(tmp_path / "second.safetensors")
    assert "non-commercial" in again.licence
    assert again.tensors["pose_token"].dtype == torch.float16


def test_only_what_inference_needs_is_written(tmp_path):
    tensors = {**tiny_tensors(), "masked_img_token": torch.ones(1, 16)}
    path = write_official(tmp_path / "tiny.pth", tensors)
    convert(path, tmp_path / "small.safetensors")
    small = read_checkpoint(tmp_path / "small.safetensors")
    assert set(small.tensors) == set(tiny_tensors(world_points_head=False))
    with pytest.raises(CheckpointError, match="--world-points-head"):
        build_network(small, world_points_head=True)
    convert(path, tmp_path / "large.safetensors", world_points_head=True)
    large = read_checkpoint(tmp_path / "large.safetensors")
    assert set(large.tensors) == set(tiny_tensors())
    assert outputs(build_network(large, world_points_head=True))[-1].shape == (1, 32, 48)


@pytest.mark.parametrize(
    ("dtype", "error"), [("float32", 0.0), ("float16", 2**-11), ("bfloat16", 2**-8)]
)
def test_half_precision_rounds_the_weights_and_widens_them_when_read(
    official, tmp_path, dtype, error
):
    path = tmp_path / f"{dtype}.safetensors"
    convert(official, path, dtype=dtype)
    assert path.stat().st_size < official.stat().st_size * (1 if error == 0 else 0.6)
    exact = load_network(official).state_dict()
    for name, weight in load_network(path).state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.allclose(weight, exact[name], rtol=error, atol=1e-7 if error else 0), name


def test_tensors_are_mapped_from_the_file_and_aligned(official, tmp_path):
    path = tmp_path / "tiny.safetensors"
    convert(official, path)
    checkpoint = read_checkpoint(path)
    for name, weight in build_network(checkpoint).state_dict().items():
        assert weight.data_ptr() == checkpoint.tensors[name].data_ptr(), name
        assert weight.data_ptr() % 64 == 0 or weight.numel() * 4 % 64, name


def test_a_value_too_large_for_half_precision_is_named_and_no_file_is_left(tmp_path):
    tensors = tiny_tensors()
    tensors["pose_token"][0, 0, 3] = 1e6
    path = write_official(tmp_path / "large.pth", tensors)
    with pytest.raises(CheckpointError, match="pose_token has values that are not finite"):
        convert(path, tmp_path / "out.safetensors", dtype="float16")
    assert [entry.name for entry in tmp_path.iterdir()] == ["large.pth"]
    convert(path, tmp_path / "out.safetensors", dtype="bfloat16")


def test_a_failed_conversion_leaves_the_file_that_was_there(official, tmp_path):
    target = tmp_path / "out.safetensors"
    convert(official, target)
    before = target.read_bytes()
    tensors = tiny_tensors()
    del tensors["pose_token"]
    write_official(official, tensors)
    with pytest.raises(CheckpointError, match="pose_token is missing"):
        convert(official, target)
    assert target.read_bytes() == before


def test_a_file_may_be_replaced_while_a_network_uses_it(official, tmp_path):
    target = tmp_path / "out.safetensors"
    convert(official, target)
    network = load_network(target)
    expected = outputs(network)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tiny_tensors().items()}
    convert(write_official(tmp_path / "zeros.pth", zeros), target)
    for a, b in zip(expected, outputs(network), strict=True):
        assert torch.equal(a, b)
    assert not load_network(target).pose_token.any()


@pytest.mark.parametrize(
    ("target", "dtype", "said"),
    [
        ("out.pth", "float32", r"must end in \.safetensors"),
        ("absent/out.safetensors", "float32", "directory .*absent does not exist"),
        ("out.safetensors", "int8", "dtype: must be one of float32, float16, bfloat16"),
    ],
)
def test_a_target_that_cannot_be_written_is_named(official, tmp_path, target, dtype, said):
    with pytest.raises(CheckpointError, match=said):
        convert(official, tmp_path / target, dtype=dtype)


def test_weights_of_our_own_carry_their_own_note(tmp_path):
    path = tmp_path / "own.safetensors"
    write_checkpoint(
        path,
        tiny_tensors(world_points_head=False),
        config=TINY,
        image_size=128,
        licence="Apache-2.0",
        settings={"segment.reset_interval": 0, "scale": 1.5},
    )
    checkpoint = read_checkpoint(path)
    assert checkpoint.licence == "Apache-2.0"
    assert checkpoint.settings == {"segment.reset_interval": 0, "scale": 1.5}
    assert checkpoint.image_size == 128
    assert checkpoint.source == ""
