# SPDX-License-Identifier: Apache-2.0
"""Compiled steps against the steps themselves, and what a device cannot have."""

from __future__ import annotations

import pytest
import torch

from ttt3r_ros.network.acceleration import accelerated

CPU = torch.device("cpu")


def follow(network, images):
    with torch.inference_mode():
        state = network.initial_state()
        for image in images:
            state, seen = network.advance(state, network.encode(image))
    return {**state.to_tensors(), "points": seen.points, "pose": seen.pose}


def test_compiled_blocks_give_what_the_blocks_give(build, images, monkeypatch):
    # Each process that compiles beside this one would load torch first.
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    network = build({"enc_depth": 1, "dec_depth": 2})
    expected = follow(network, images)
    fast = accelerated(network, "compile", CPU)
    got = follow(fast, images)
    assert all(block._compiled_call_impl for block in fast.enc_blocks)
    assert not any(block._compiled_call_impl for block in network.enc_blocks)
    assert fast.pose_token is network.pose_token  # the weights are there once
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("how", ["auto", "none"])
def test_on_a_cpu_nothing_is_accelerated_unless_asked_for(build, how):
    network = build()
    assert accelerated(network, how, CPU) is network
    assert not any(block._compiled_call_impl for block in network.enc_blocks)


@pytest.mark.parametrize(("how", "named"), [("graphs", "only CUDA.*cpu"), ("jit", "'jit'")])
def test_what_a_device_cannot_have_is_refused(build, how, named):
    with pytest.raises(ValueError, match=f"^acceleration: .*{named}"):
        accelerated(build(), how, CPU)
