# SPDX-License-Identifier: Apache-2.0
"""The linear layer against torch's own."""

from __future__ import annotations

import pytest
import torch

from ttt3r_ros.network import linear
from ttt3r_ros.network.linear import Linear


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Linear(40, 24)


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of torch's own forward."""
    made = []
    own = torch.nn.Linear.forward

    def counted(self, x):
        made.append(x)
        return own(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)
    return made


@pytest.mark.parametrize("shape", [(40,), (1, 40), (2, 7, 40), (0, 40)])
def test_both_libraries_give_the_same(layer, calls, shape):
    x = torch.randn(shape)
    with torch.inference_mode():
        got = layer(x)
        assert len(calls) == (0 if linear._ONEDNN_BESIDE_MKL else 1)
        torch.testing.assert_close(got, torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_a_layer_without_bias_and_an_input_with_gaps_are_served(calls):
    layer = Linear(40, 24, bias=False)
    x = torch.randn(2, 40, 9)[..., 1:].transpose(1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), x @ layer.weight.T)


def test_gradients_are_recorded_by_torchs_own(layer, calls):
    layer(torch.randn(3, 40)).sum().backward()
    assert len(calls) == 1
    assert layer.weight.grad is not None and layer.bias.grad.eq(3).all()


def test_autocast_and_other_precisions_are_left_to_torch(layer, calls):
    x = torch.randn(3, 40)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer.double()(x.double()).dtype == torch.float64
        assert layer.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert len(calls) == 3
