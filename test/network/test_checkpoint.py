# SPDX-License-Identifier: Apache-2.0
"""Reading files of weights into networks."""

from __future__ import annotations

import argparse
import datetime
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import (
    GOLDEN,
    RECIPE,
    TINY,
    TINY_TEXT,
    omegaconf_args,
    tiny_tensors,
    write_official,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from ttt3r_ros.camera.preprocessing import to_network_input
from ttt3r_ros.network.checkpoint import build_network, load_network, read_checkpoint
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.types import CheckpointError

OFFICIAL = json.loads((GOLDEN / "official_params.json").read_text())
OFFICIAL_TEXT = {
    head: (
        "ARCroco3DStereo(ARCroco3DStereoConfig(state_size=768, state_pe='2d', "
        "pos_embed='RoPE100', rgb_head=True, pose_head=True, "
        f"img_size=({size}, {size}), head_type='{head}', output_mode='pts3d+pose', "
        "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
        "pose_mode=('exp', -inf, inf), enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, "
        "dec_embed_dim=768, dec_depth=12, dec_num_heads=12))"
    )
    for size, head in ((512, "dpt"), (224, "linear"))
}


def one_name(name):
    """The name of a tensor that official files list under two names."""
    return re.sub(r"layer_rn\.(\d)", lambda found: f"layer{int(found[1]) + 1}_rn", name)


def assert_same_weights(network, tensors):
    weights = network.state_dict()
    assert len(weights) > 50
    for name, tensor in weights.items():
        assert torch.equal(tensor, tensors[name]), name


@pytest.mark.parametrize("set_name", ["A_dpt_landscape", "B_linear"])
def test_an_official_file_gives_the_recorded_outputs(tmp_path, set_name):
    folder = GOLDEN / set_name
    path = RECIPE["write_checkpoint"](str(folder / "set.json"), str(tmp_path / "weights.pth"))
    network = load_network(path, update_rule="ttt3r")
    with np.load(folder / "inputs.npz") as inputs:
        images = inputs["images"]
    with np.load(folder / "golden_ttt3r_f32.npz") as golden:
        expected = golden["pts3d_in_self_view"]
        assert list(golden["order"][:2]) == [0, 1]
    state = network.initial_state()
    for image, points in zip(images[:2], expected[:2], strict=True):
        state, prediction = network.step(state, to_network_input(image))
        error = np.abs(prediction.points[0].numpy() - points) / (1 + np.abs(points))
        assert (error > 1e-4).mean() < 2e-4


@pytest.mark.parametrize(
    ("size", "head", "parameters"), [("512", "dpt", 793_307_858), ("224", "linear", 748_443_655)]
)
def test_a_file_of_the_official_names_and_shapes_loads_strictly_and_without_a_copy(
    tmp_path, size, head, parameters
):
    shapes = OFFICIAL[size]
    with FakeTensorMode():  # no memory, and below a file with a hole in place of the weights
        distinct = {one_name(name): torch.empty(shape) for name, shape in shapes.items()}
    assert sum(tensor.numel() for tensor in distinct.values()) == parameters
    tensors = {f"module.{name}": distinct[one_name(name)] for name in shapes}
    path = tmp_path / "official.pth"
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        write_official(path, tensors, argparse.Namespace(model=OFFICIAL_TEXT[head]))
    assert path.stat().st_size > 4 * parameters

    checkpoint = read_checkpoint(path)
    for world_points_head in (False, True):
        network = build_network(checkpoint, world_points_head=world_points_head)
        for name, tensor in network.state_dict().items():
            assert tensor.data_ptr() == checkpoint.tensors[name].data_ptr(), name
    assert checkpoint.image_size == int(size)
    assert (checkpoint.config.dec_num_heads, checkpoint.config.state_dec_num_heads) == (12, 16)


def test_settings_pickled_by_omegaconf_are_read_without_omegaconf():
    checkpoint = read_checkpoint(GOLDEN / "loader" / "omegaconf_args.pth")
    assert checkpoint.config == NetworkConfig(
        enc_embed_dim=1024,
        enc_depth=24,
        enc_num_heads=16,
        dec_embed_dim=768,
        dec_depth=12,
        dec_num_heads=12,
        head_type="dpt",
        state_size=768,
    )
    assert set(checkpoint.tensors) == {"pose_token", "register_tokens.weight"}


def test_the_model_string_is_found_wherever_the_settings_keep_it(tmp_path):
    with omegaconf_args(TINY_TEXT) as settings:
        path = write_official(tmp_path / "omegaconf.pth", args=settings)
    assert read_checkpoint(path).config == TINY
    nested = argparse.Namespace(runs=[{"net": ("x", f"  {TINY_TEXT}\n")}], again=TINY_TEXT)
    assert read_checkpoint(write_official(tmp_path / "nested.pth", args=nested)).config == TINY


def test_leftovers_of_training_are_ignored(tmp_path):
    tensors = {**tiny_tensors(), "masked_img_token": torch.ones(1, 16), "epoch": 3}
    path = write_official(
        tmp_path / "leftovers.pth",
        tensors,
        optimizer={"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-4}]},
        best_so_far=np.float64(0.25),
        losses=np.arange(3.0),
        output_dir=Path("checkpoints"),
        when=datetime.timedelta(days=1),
        tags={"a", "b"},
    )
    assert_same_weights(load_network(path), tiny_tensors())


def test_a_prefix_on_every_name_is_dropped(tmp_path):
    tensors = {f"module.{name}": tensor for name, tensor in tiny_tensors().items()}
    assert_same_weights(
        load_network(write_official(tmp_path / "module.pth", tensors)), tiny_tensors()
    )


def test_a_file_of_one_decoder_uses_it_for_both_streams(tmp_path):
    tensors = {
        name: tensor
        for name, tensor in tiny_tensors().items()
        if not name.startswith("dec_blocks_state.")
    }
    weights = load_network(write_official(tmp_path / "old.pth", tensors)).state_dict()
    copied = [name for name in weights if name.startswith("dec_blocks_state.")]
    assert len(copied) > 20
    for name in copied:
        assert torch.equal(weights[name], tensors[name.replace("_state", "")]), name


def test_a_network_is_ready_for_inference(tmp_path):
    network = load_network(write_official(tmp_path / "tiny.pth"), update_rule="cut3r")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert type(network.update_rule).__name__ == "Cut3r"
    half = {name: tensor.half() for name, tensor in tiny_tensors().items()}
    network = load_network(write_official(tmp_path / "half.pth", half))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_all_tensors_that_do_not_fit_are_listed(tmp_path):
    tensors = tiny_tensors()
    del tensors["dec_norm.bias"]
    tensors["pose_token"] = torch.ones(1, 1, 7)
    path = write_official(tmp_path / "partial.pth", tensors)
    with pytest.raises(CheckpointError) as caught:
        load_network(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: 2 of ")
    assert "dec_norm.bias is missing" in message
    assert "pose_token is [1, 1, 7], expected [1, 1, 16]" in message


def test_a_long_list_of_tensors_that_do_not_fit_is_cut(tmp_path):
    path = write_official(tmp_path / "other.pth", {"something.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"patch_embed.*; and \d+ more$") as caught:
        load_network(path)
    assert len(str(caught.value)) < 1000


def test_official_files_say_that_they_are_not_for_commercial_use(tmp_path):
    checkpoint = read_checkpoint(write_official(tmp_path / "tiny.pth"))
    assert "non-commercial" in checkpoint.licence
    assert checkpoint.settings == {"segment.reset_interval": 100}
    assert checkpoint.image_size == 64


def test_a_key_nobody_knows_is_reported_and_ignored(tmp_path, caplog):
    text = TINY_TEXT.replace("rgb_head=True", "rgb_head=True, some_new_thing=(1, 'a')")
    path = write_official(tmp_path / "new.pth", args=argparse.Namespace(model=text))
    checkpoint = read_checkpoint(path)
    assert checkpoint.unknown == ("some_new_thing=(1, 'a')",)
    assert "some_new_thing=(1, 'a')" in caplog.text
    assert_same_weights(build_network(checkpoint), tiny_tensors())
