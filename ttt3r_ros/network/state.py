# SPDX-License-Identifier: Apache-2.0
"""What a stream carries from image to image, and the rules by which its state changes.

A rule is training-free: it only chooses, per state token, how much of the decoder's proposal to
take. A new rule is one subclass of `UpdateRule` and one line in `UPDATE_RULES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

RULE_PREFIX = "rule."


@dataclass(frozen=True, slots=True, eq=False)
class RecurrentState:
    """All that crosses from one image to the next; its size never grows.

    A step returns a new one and leaves the old untouched; a reset is a new initial state.
    """

    tokens: Tensor  # [B, S, C]
    memory: Tensor  # [B, M, 2C], the slots of the pose memory
    # bool [B], true before a stream's first image. A tensor, so that no step waits for the
    # device and one recorded graph serves first and later images.
    fresh: Tensor
    rule_state: dict[str, Tensor] = field(default_factory=dict)  # each [B, ...]

    def clone(self) -> RecurrentState:
        """A copy that shares no storage with this one."""
        return RecurrentState(
            self.tokens.clone(),
            self.memory.clone(),
            self.fresh.clone(),
            {name: tensor.clone() for name, tensor in self.rule_state.items()},
        )

    def to(self, device: torch.device | str) -> RecurrentState:
        """The same state on another device."""
        return RecurrentState(
            self.tokens.to(device),
            self.memory.to(device),
            self.fresh.to(device),
            {name: tensor.to(device) for name, tensor in self.rule_state.items()},
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """One flat dictionary, fit for a safetensors file; `from_tensors` reads it back."""
        tensors = {"tokens": self.tokens, "memory": self.memory, "fresh": self.fresh}
        tensors.update({RULE_PREFIX + name: t for name, t in self.rule_state.items()})
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> RecurrentState:
        """The state that `to_tensors` wrote.

        Raises:
            ValueError: an entry is missing, unknown or of the wrong shape or type; the message
                names it.
        """
        for name in ("tokens", "memory", "fresh"):
            if name not in tensors:
                raise ValueError(f"{name}: missing in the stored state, found {sorted(tensors)}")
        tokens, memory, fresh = tensors["tokens"], tensors["memory"], tensors["fresh"]
        if tokens.ndim != 3 or not tokens.is_floating_point():
            raise ValueError(f"tokens: expected float [B, S, C], got {_describe(tokens)}")
        batch, _, width = tokens.shape
        slot_shape = (batch, 2 * width)
        if memory.ndim != 3 or memory.shape[::2] != slot_shape or memory.dtype != tokens.dtype:
            raise ValueError(
                f"memory: expected {tokens.dtype} [{batch}, M, {2 * width}] "
                f"beside tokens {list(tokens.shape)}, got {_describe(memory)}"
            )
        if fresh.shape != (batch,) or fresh.dtype != torch.bool:
            raise ValueError(f"fresh: expected bool [{batch}], got {_describe(fresh)}")
        rule_state = {}
        for name in tensors.keys() - {"tokens", "memory", "fresh"}:
            if not name.startswith(RULE_PREFIX):
                raise ValueError(
                    f"{name}: unknown entry in the stored state; allowed are tokens, memory, "
                    f"fresh and names that begin with '{RULE_PREFIX}'"
                )
            if tensors[name].shape[:1] != (batch,):
                raise ValueError(f"{name}: expected [{batch}, ...], got {_describe(tensors[name])}")
            rule_state[name.removeprefix(RULE_PREFIX)] = tensors[name]
        return cls(tokens, memory, fresh, rule_state)


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


class UpdateRule(ABC):
    """How much of the proposed state each state token takes."""

    def initial(self, tokens: Tensor) -> dict[str, Tensor]:
        """What the rule keeps per stream, before the first image; most rules keep nothing.

        Args:
            tokens: the initial state tokens, [B, S, C].
        """
        return {}

    @abstractmethod
    def gain(
        self, beta: Tensor, candidate: Tensor, state: RecurrentState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The gain of one step, 0 keeps a token and 1 replaces it.

        The caller puts 1 where `state.fresh` holds, and calls nothing for an image that must not
        change the state.

        Args:
            beta: attention of the state tokens to the image, in (0, 1), [B, S].
            candidate: the proposed state, [B, S, C].
            state: the state before this image.

        Returns:
            The gain [B, S] and the new `rule_state`, with the entries `initial` gave.
        """


class Cut3r(UpdateRule):
    """The proposal replaces the state (CUT3R)."""

    def gain(
        self, beta: Tensor, candidate: Tensor, state: RecurrentState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One everywhere."""
        return torch.ones_like(beta), {}


class Ttt3r(UpdateRule):
    """Each token moves as far as it attends to the image (TTT3R, arXiv 2509.26645).

    Args:
        damping: factor of the gain, above 0 and at most 1. Below 1 the state changes more slowly
            and lasts longer.
    """

    def __init__(self, damping: float = 1.0) -> None:
        if not 0 < damping <= 1:
            raise ValueError(f"damping: must be above 0 and at most 1, got {damping!r}")
        self._damping = damping

    def gain(
        self, beta: Tensor, candidate: Tensor, state: RecurrentState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """β times the damping."""
        return self._damping * beta, {}


class Brake(UpdateRule):
    """TTT3R's gain, less where a token is pushed on in the direction it was last pushed.

    With δ = candidate - state the gain is β sigmoid(-cos(δ, δ')), δ' being that of the image
    before; where there was none, half of β. The first image counts as one before. From the
    reproduction table of the DDD3R study (8 TUM-dynamics and 65 ScanNet sequences), its τ being 1.
    """

    def initial(self, tokens: Tensor) -> dict[str, Tensor]:
        """No push yet: its cosine with anything is 0."""
        return {"push": torch.zeros_like(tokens)}

    def gain(
        self, beta: Tensor, candidate: Tensor, state: RecurrentState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Between 0.27 β and 0.73 β."""
        push = candidate - state.tokens
        cosine = F.cosine_similarity(push, state.rule_state["push"], dim=-1)
        return beta * torch.sigmoid(-cosine), {"push": push}


class Filt3r(UpdateRule):
    """A Kalman filter for each token, its noise told by how far proposals jump (arXiv 2603.18493).

    A proposal d away from the last one, in units of the running mean of such distances, adds Q to
    the token's variance P; the gain is P / (P + R). Attention has no part in it.
    """

    _FIRST_P, _R = 1.5, 1.0
    _LEAST_Q, _MOST_Q = 0.02, 0.5
    _STEEPNESS, _THRESHOLD = 20.0, 3.0  # of Q over d
    _FORGETTING, _LEAST_MEAN = 0.05, 0.01  # of the running mean of distances

    def initial(self, tokens: Tensor) -> dict[str, Tensor]:
        """No proposal yet, and a variance above that of one."""
        return {
            "variance": tokens.new_full(tokens.shape[:2], self._FIRST_P),
            "proposal": torch.zeros_like(tokens),
            "proposed": tokens.new_zeros(len(tokens)),  # 1: there was a proposal
            "mean": tokens.new_zeros(len(tokens)),  # of distances; 0: there was none
        }

    def gain(
        self, beta: Tensor, candidate: Tensor, state: RecurrentState
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Between 0.02 and 0.67, since P stays between the least Q and 2: never clamped."""
        kept, fresh = state.rule_state, state.fresh
        distance = torch.linalg.vector_norm(candidate - kept["proposal"], dim=-1)  # [B, S]
        distance = torch.where(kept["proposed"][:, None] > 0, distance, torch.ones_like(distance))
        now, before = distance.mean(dim=1), kept["mean"]
        mean = torch.where(before > 0, torch.lerp(before, now, self._FORGETTING), now)
        mean = mean.clamp(min=self._LEAST_MEAN)
        jump = torch.sigmoid(self._STEEPNESS * (distance / mean[:, None] - self._THRESHOLD))
        predicted = kept["variance"] + self._LEAST_Q + (self._MOST_Q - self._LEAST_Q) * jump
        gain = predicted / (predicted + self._R)
        variance = (1 - gain).square() * predicted + gain.square() * self._R
        return gain, {
            "variance": variance.masked_fill(fresh[:, None], self._FIRST_P),
            "proposal": candidate,
            "proposed": torch.ones_like(kept["proposed"]),
            "mean": mean.masked_fill(fresh, 0.0),
        }


UPDATE_RULES: dict[str, type[UpdateRule]] = {
    "cut3r": Cut3r,
    "ttt3r": Ttt3r,
    "brake": Brake,
    "filt3r": Filt3r,
}


def find_update_rule(rule: UpdateRule | str) -> UpdateRule:
    """The rule itself, or the one of that name.

    Raises:
        ValueError: no rule has that name.
    """
    if isinstance(rule, UpdateRule):
        return rule
    if rule not in UPDATE_RULES:
        raise ValueError(f"update_rule: must be one of {sorted(UPDATE_RULES)}, got {rule!r}")
    return UPDATE_RULES[rule]()
