# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ttt3r_ros.network.state import (
    Cut3r,
    RecurrentState,
    UpdateRule,
    find_update_rule,
)


def some_state() -> RecurrentState:
    return RecurrentState(
        tokens=torch.randn(2, 5, 4),
        memory=torch.randn(2, 3, 8),
        fresh=torch.tensor([True, False]),
        rule_state={"previous": torch.randn(2, 5)},
    )


def assert_same(left: RecurrentState, right: RecurrentState) -> None:
    left, right = left.to_tensors(), right.to_tensors()
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


class Counting(UpdateRule):
    """A third of the proposal, while it counts the images that changed the state."""

    def initial(self, tokens):
        return {"count": torch.zeros(tokens.shape[:2])}

    def gain(self, beta, candidate, state):
        return torch.full_like(beta, 1 / 3), {"count": state.rule_state["count"] + 1}


def test_a_stored_state_comes_back_equal(tmp_path):
    state = some_state()
    save_file(state.to_tensors(), tmp_path / "state.safetensors")
    assert_same(RecurrentState.from_tensors(load_file(tmp_path / "state.safetensors")), state)


def test_a_clone_shares_nothing():
    state = some_state()
    clone = state.clone()
    assert_same(clone, state)
    for name, tensor in clone.to_tensors().items():
        assert tensor.data_ptr() != state.to_tensors()[name].data_ptr(), name


def test_moving_a_state_moves_every_entry():
    moved = some_state().to("meta").to_tensors()
    assert {tensor.device.type for tensor in moved.values()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("tokens", None, "tokens: missing"),
        ("memory", None, "memory: missing"),
        ("fresh", None, "fresh: missing"),
        ("tokens", torch.zeros(5, 4), r"tokens: expected float \[B, S, C\], got torch.float32 \[5"),
        ("tokens", torch.zeros(2, 5, 4, dtype=torch.int64), "tokens: expected float"),
        ("memory", torch.zeros(2, 3, 4), r"memory: expected torch.float32 \[2, M, 8\]"),
        ("memory", torch.zeros(1, 3, 8), r"memory: expected torch.float32 \[2, M, 8\]"),
        ("memory", torch.zeros(2, 3, 8).half(), r"memory: .*got torch.float16 \[2, 3, 8\]"),
        ("fresh", torch.zeros(2), r"fresh: expected bool \[2\], got torch.float32 \[2\]"),
        ("fresh", torch.zeros(3, dtype=torch.bool), r"fresh: expected bool \[2\]"),
        ("rule.previous", torch.zeros(1, 5), r"rule.previous: expected \[2, ...\]"),
        ("pose", torch.zeros(2, 7), "pose: unknown entry"),
    ],
)
def test_a_damaged_stored_state_is_refused_by_name(name, tensor, message):
    tensors = some_state().to_tensors() | {name: tensor}
    if tensor is None:
        del tensors[name]
    with pytest.raises(ValueError, match=message):
        RecurrentState.from_tensors(tensors)


def test_an_unknown_rule_is_refused_with_the_known_names():
    with pytest.raises(ValueError, match=r"update_rule: must be one of \['brake', .*got 'ttt4r'"):
        find_update_rule("ttt4r")


def test_a_rule_object_is_taken_as_it_is():
    rule = Cut3r()
    assert find_update_rule(rule) is rule


def test_ttt3r_takes_as_much_as_is_attended_and_cut3r_takes_all():
    state, beta = some_state(), torch.rand(2, 5)
    candidate = torch.randn(2, 5, 4)
    assert torch.equal(find_update_rule("ttt3r").gain(beta, candidate, state)[0], beta)
    assert torch.equal(find_update_rule("cut3r").gain(beta, candidate, state)[0], torch.ones(2, 5))


def test_a_rule_may_keep_something_of_its_own_per_stream(build, images):
    network = build(update_rule=Counting())
    state = network.initial_state()
    for image, update in zip(images, (True, True, False, True), strict=True):
        before = state
        state, prediction = network.step(state, image, update)
    assert torch.equal(state.rule_state["count"], torch.full((1, 10), 3.0))
    torch.testing.assert_close(prediction.gain, torch.full((1, 10), 1 / 3))
    assert torch.equal(before.rule_state["count"], torch.full((1, 10), 2.0))
