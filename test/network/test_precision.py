# SPDX-License-Identifier: Apache-2.0
"""Weights in a lower precision against autocast, and what may be rounded to TF32."""

from __future__ import annotations

import itertools
import subprocess

import pytest
import torch
from preloaded import new_process
from torch import nn

from ttt3r_ros.network.precision import LOWER, precision_of, tf32_products

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HEADS = ("dpt", "linear")


def follow(network, images, autocast=None):
    """The states and answers over images."""
    with torch.inference_mode(), torch.autocast("cpu", autocast, enabled=autocast is not None):
        state, found = network.initial_state(), []
        for image in images:
            state, seen = network.step(state, image)
            found.append((state, seen))
    return found


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rope_float16", [False, True])
@pytest.mark.parametrize("dtype", LOWER.values())
def test_state_and_pose_are_to_the_bit_those_under_autocast(
    build, images, dtype, rope_float16, head
):
    patch = {"patch_size": 16, "head_type": head}
    network = build(patch, rope_float16=rope_float16)
    images = torch.nn.functional.interpolate(images.flatten(0, 1), (32, 48))[:, None]
    expected = follow(network, images, dtype)
    network.keep_weights_in(dtype)
    for (state, seen), (usual_state, usually_seen) in zip(
        follow(network, images), expected, strict=True
    ):
        torch.testing.assert_close(state.tokens, usual_state.tokens, rtol=0, atol=0)
        torch.testing.assert_close(state.memory, usual_state.memory, rtol=0, atol=0)
        torch.testing.assert_close(seen.pose, usually_seen.pose, rtol=0, atol=0)
        assert seen.points.dtype == seen.confidence.dtype == torch.float32


@pytest.mark.parametrize("head", HEADS)
def test_heads_norms_and_what_the_state_begins_with_stay_in_float32(build, head):
    network = build({"patch_size": 16, "head_type": head})
    network.keep_weights_in(torch.bfloat16)
    kept = {name for name, value in network.named_parameters() if value.dtype == torch.float32}
    assert {name for name in kept if name.startswith("downstream_head.")} == {
        name for name, _ in network.named_parameters() if name.startswith("downstream_head.")
    }
    assert {"pose_token", "register_tokens.weight", "decoder_embed_state.weight"} <= kept
    assert {"pose_retriever.mem", "pose_retriever.masked_token"} <= kept
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert f"{name}.weight" in kept
    lower = {name for name, _ in network.named_parameters()} - kept
    parts = ("patch_embed", "enc_blocks", "decoder_embed", "dec_blocks", "dec_blocks_state")
    assert {name.split(".")[0] for name in lower} == {*parts, "pose_retriever"}


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("auto", CPU, "float32"),
        ("auto", CUDA, "tf32"),
        ("float32", CUDA, "float32"),
        ("tf32", CUDA, "tf32"),
        ("bfloat16", CPU, "bfloat16"),
        ("float16", CUDA, "float16"),
    ],
)
def test_auto_is_as_published_on_a_gpu_and_exact_on_a_cpu(name, device, expected):
    assert precision_of(name, device) == expected


@pytest.mark.parametrize(("name", "named"), [("tf32", "cpu"), ("int8", "'int8'")])
def test_what_a_device_cannot_have_is_refused(name, named):
    with pytest.raises(ValueError, match=f"^dtype: .*{named}"):
        precision_of(name, CPU)


def allowed():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision == "tf32", cudnn.conv.fp32_precision == "tf32"
    return matmul.allow_tf32, cudnn.allow_tf32


def test_tf32_is_for_the_network_but_not_for_poses_and_nobody_else(build, images):
    network = build()
    seen = {}

    def note(name):
        def hook(*_) -> None:
            seen[name] = allowed()

        return hook

    network.patch_embed.register_forward_hook(note("encoder"))
    network.dec_norm.register_forward_hook(note("decoder"))
    network.downstream_head.proj.register_forward_hook(note("heads"))
    network.downstream_head.pose_head.mlp.register_forward_hook(note("pose"))
    before = allowed()
    for network.tf32 in (False, True):
        seen.clear()
        follow(network, images[:1])
        expected = dict.fromkeys(("encoder", "decoder", "heads"), (network.tf32,) * 2)
        assert seen == expected | {"pose": (False, False)}
        assert allowed() == before


def test_a_program_that_uses_either_way_to_switch_is_not_disturbed(program):
    code = """
import torch
{switch}
from ttt3r_ros.network.precision import tf32_products
with tf32_products(True), tf32_products(False):
    pass
print({read})
"""
    matmul = "torch.backends.cuda.matmul"
    ways = [(f"{matmul}.allow_tf32 = True", f"{matmul}.allow_tf32", "True")]
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        ways.append((f"{matmul}.fp32_precision = 'tf32'", f"{matmul}.fp32_precision", "tf32"))
        ways.append(("torch.backends.fp32_precision = 'tf32'", f"{matmul}.fp32_precision", "tf32"))
    starts = itertools.chain([new_process], itertools.repeat(program))
    for start, (switch, read, expected) in zip(starts, ways, strict=False):
        words = start("-c", code.format(switch=switch, read=read))
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_the_switch_goes_back_after_an_error():
    before = allowed()
    with pytest.raises(KeyError), tf32_products(not before[0]):
        assert allowed() == (not before[0],) * 2
        raise KeyError
    assert allowed() == before
