# SPDX-License-Identifier: Apache-2.0
"""Each update rule against a plain twin that goes token by token in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ttt3r_ros.network.state import (
    UPDATE_RULES,
    Brake,
    Cut3r,
    Filt3r,
    RecurrentState,
    Ttt3r,
    find_update_rule,
)

BATCH, TOKENS, WIDTH = 2, 7, 6


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


class PlainCut3r:
    def gains(self, beta, candidate, state):
        return [1.0] * len(beta)


class PlainTtt3r:
    def __init__(self, damping=1.0):
        self.damping = damping

    def gains(self, beta, candidate, state):
        return [self.damping * b for b in beta]


class PlainBrake:
    def __init__(self):
        self.pushes = None

    def gains(self, beta, candidate, state):
        pushes = [c - s for c, s in zip(candidate, state, strict=True)]
        gains = []
        for m, push in enumerate(pushes):
            factor = 0.5
            if self.pushes is not None:
                last = self.pushes[m]
                cosine = push @ last / (np.linalg.norm(push) * np.linalg.norm(last))
                factor = sigmoid(-cosine)
            gains.append(beta[m] * factor)
        self.pushes = pushes
        return gains


class PlainFilt3r:
    def __init__(self):
        self.variance = [1.5] * TOKENS
        self.candidate = self.mean = None

    def gains(self, beta, candidate, state):
        if self.candidate is None:
            distances = [1.0] * TOKENS
        else:
            pairs = zip(candidate, self.candidate, strict=True)
            distances = [float(np.linalg.norm(a - b)) for a, b in pairs]
        now = sum(distances) / TOKENS
        self.mean = now if self.mean is None else 0.95 * self.mean + 0.05 * now
        self.mean = max(self.mean, 0.01)
        gains = []
        for m, distance in enumerate(distances):
            q = 0.02 + (0.5 - 0.02) * sigmoid(20 * (distance / self.mean - 3))
            predicted = self.variance[m] + q
            gain = min(max(predicted / (predicted + 1), 0.01), 0.99)
            self.variance[m] = (1 - gain) ** 2 * predicted + gain**2 * 1
            gains.append(gain)
        self.candidate = candidate
        return gains

    def after_first(self):
        self.variance, self.mean = [1.5] * TOKENS, None


RULES = {
    "cut3r": (Cut3r, PlainCut3r),
    "ttt3r": (Ttt3r, PlainTtt3r),
    "damped": (lambda: Ttt3r(0.4), lambda: PlainTtt3r(0.4)),
    "brake": (Brake, PlainBrake),
    "filt3r": (Filt3r, PlainFilt3r),
}


def proposals(images, seed):
    """Attention [T, B, S] and proposals [T, B, S, C], some of which leap."""
    generator = torch.Generator().manual_seed(seed)
    beta = torch.rand(images, BATCH, TOKENS, generator=generator)
    steps = torch.randn(images, BATCH, TOKENS, WIDTH, generator=generator)
    leaps = 1 + 9 * (torch.rand(images, BATCH, TOKENS, 1, generator=generator) < 0.2)
    return beta.double(), (0.3 * steps * leaps).cumsum(0).double()


def new_state(rule):
    tokens = torch.zeros(BATCH, TOKENS, WIDTH, dtype=torch.float64)
    fresh = torch.ones(BATCH, dtype=torch.bool)
    return RecurrentState(tokens, torch.zeros(BATCH, 3, 2 * WIDTH), fresh, rule.initial(tokens))


def advance(rule, state, beta, candidate):
    """One step as the network does it: the first image replaces everything."""
    gain, kept = rule.gain(beta, candidate, state)
    gain = gain.masked_fill(state.fresh[:, None], 1.0)
    tokens = torch.lerp(state.tokens, candidate, gain[..., None])
    return gain, RecurrentState(tokens, state.memory, torch.zeros_like(state.fresh), kept)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_equals_its_plain_twin(name):
    make, make_plain = RULES[name]
    rule, twins = make(), [make_plain() for _ in range(BATCH)]
    state = new_state(rule)
    plain = state.tokens.numpy().copy()
    beta, candidates = proposals(12, seed=1)
    seen = set()
    for t in range(len(beta)):
        gain, state = advance(rule, state, beta[t], candidates[t])
        for stream, twin in enumerate(twins):
            candidate = candidates[t, stream].numpy()
            expected = twin.gains(beta[t, stream].tolist(), candidate, plain[stream])
            if t == 0:
                expected = [1.0] * TOKENS
                if hasattr(twin, "after_first"):
                    twin.after_first()
            np.testing.assert_allclose(gain[stream].numpy(), expected, rtol=1e-9)
            weight = np.array(expected)[:, None]
            plain[stream] = weight * candidate + (1 - weight) * plain[stream]
            seen.update(np.round(expected, 6))
        np.testing.assert_allclose(state.tokens.numpy(), plain, rtol=1e-9, atol=1e-12)
    assert len(seen) > 20 or name == "cut3r"


def test_a_push_on_in_the_same_direction_is_braked_and_one_back_is_not():
    rule = Brake()
    state = new_state(rule)
    beta = torch.ones(BATCH, TOKENS, dtype=torch.float64)
    _, state = advance(rule, state, beta, torch.ones_like(state.tokens))
    on, _ = rule.gain(beta, 2 * torch.ones_like(state.tokens), state)
    back, _ = rule.gain(beta, torch.zeros_like(state.tokens), state)
    torch.testing.assert_close(on, torch.full_like(on, sigmoid(-1.0)))
    torch.testing.assert_close(back, torch.full_like(back, sigmoid(1.0)))


def test_without_a_push_before_half_of_the_attention_is_taken():
    rule = Brake()
    state = new_state(rule)
    beta, candidates = proposals(1, seed=2)
    torch.testing.assert_close(rule.gain(beta[0], candidates[0], state)[0], 0.5 * beta[0])


def test_the_filter_takes_more_of_a_proposal_that_leaps():
    rule = Filt3r()
    state = new_state(rule)
    for _ in range(30):
        _, state = advance(
            rule,
            state,
            torch.zeros(BATCH, TOKENS),
            0.01
            * torch.randn(
                BATCH,
                TOKENS,
                WIDTH,
                dtype=torch.float64,
                generator=torch.Generator().manual_seed(3),
            ),
        )
    candidate = state.tokens.clone()
    candidate[:, 0] += 100.0
    gain, _ = rule.gain(torch.zeros(BATCH, TOKENS), candidate, state)
    assert (gain[:, 0] > 1.5 * gain[:, 1:].amax(dim=1)).all()


@pytest.mark.parametrize("name", RULES)
def test_streams_do_not_touch_each_other(name):
    rule = RULES[name][0]()
    beta, candidates = proposals(6, seed=4)
    state, alone = new_state(rule), new_state(rule)
    alone = RecurrentState(
        **{
            "tokens": alone.tokens[:1],
            "memory": alone.memory[:1],
            "fresh": alone.fresh[:1],
            "rule_state": {key: tensor[:1] for key, tensor in alone.rule_state.items()},
        }
    )
    for t in range(len(beta)):
        gain, state = advance(rule, state, beta[t], candidates[t])
        gain_alone, alone = advance(rule, alone, beta[t, :1], candidates[t, :1])
        torch.testing.assert_close(gain[:1], gain_alone)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_each_rule_runs_in_the_network_and_keeps_its_state_finite(name, build, images):
    network = build(update_rule=name)
    state = network.initial_state()
    for image in images:
        state, prediction = network.step(state, image)
    assert all(tensor.isfinite().all() for tensor in state.to_tensors().values())
    assert ((prediction.gain > 0) & (prediction.gain <= 1)).all()
    assert prediction.pose.isfinite().all()
    restored = RecurrentState.from_tensors(state.to_tensors())
    again, _ = network.step(restored, images[0])
    expected, _ = network.step(state, images[0])
    assert torch.equal(again.tokens, expected.tokens)


@pytest.mark.parametrize("damping", [0.0, -1.0, 1.5, float("nan")])
def test_a_damping_that_is_no_share_is_refused(damping):
    with pytest.raises(ValueError, match="damping: must be above 0 and at most 1"):
        Ttt3r(damping)


def test_rules_are_found_by_name():
    assert {type(find_update_rule(name)) for name in UPDATE_RULES} == {Cut3r, Ttt3r, Brake, Filt3r}
