# SPDX-License-Identifier: Apache-2.0
"""What the edges of a graph say against where its nodes stand, and how that changes.

Poses are perturbed on their right, translation and rotation apart: T moved by (ρ, φ) has the
rotation R · Exp(φ) and the translation t + R · ρ; a logarithm of scale λ becomes λ + δ. With the
cameras T_i = T_a · T_ai and T_j = T_b · T_bj an edge's error is E = Z⁻¹ · T_i⁻¹ · T_j as
(t_E, Log R_E), and therefore

    ∂t_E/∂ρ_i = -R_Zᵀ              ∂t_E/∂φ_i = R_Zᵀ · [t_ij]ₓ       ∂t_E/∂ρ_j = R_E
    ∂Log R_E/∂φ_i = -J_r⁻¹ · R_ijᵀ  ∂Log R_E/∂φ_j = J_r⁻¹

of which each camera's part is carried to its segment: ρ_i = R_aiᵀ (ρ - [e^λ t_ai]ₓ φ + e^λ t_ai δ)
and φ_i = R_aiᵀ φ. With scales t_ai, t_bj and t_Z (measured at the first segment's scale) are
multiplied by e^λ of their segments, and an edge may say λ_b - λ_a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform
from ttt3r_ros.pose_graph.graph import Edge
from ttt3r_ros.pose_graph.rotations import (
    Array,
    exponential,
    hat,
    inverse_right_jacobian,
    logarithm,
)


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Where N nodes stand."""

    rotation: Array  # [N, 3, 3]
    translation: Array  # [N, 3] metres
    log_scale: Array  # [N], 0 unless scales are solved for

    @classmethod
    def of(cls, poses: Sequence[Transform]) -> Estimate:
        """Take poses [4, 4]."""
        stacked = np.array(poses, np.float64).reshape(-1, 4, 4)
        return cls(stacked[:, :3, :3], stacked[:, :3, 3], np.zeros(len(stacked)))

    def moved(self, step: Array) -> Estimate:
        """Move each node by its row (ρ, φ) or (ρ, φ, δ), [N, 6 or 7]."""
        rotation = self.rotation @ exponential(step[:, 3:6])
        translation = self.translation + _times(self.rotation, step[:, :3])
        scale = self.log_scale + step[:, 6] if step.shape[1] == 7 else self.log_scale
        return Estimate(rotation, translation, scale)

    def transforms(self) -> Array:
        """The poses, [N, 4, 4]."""
        result = np.zeros((len(self.translation), 4, 4))
        result[:, :3, :3], result[:, :3, 3], result[:, 3, 3] = self.rotation, self.translation, 1
        return result


class Edges:
    """E edges as arrays.

    Attributes:
        first: [E] rows of the nodes that they begin at.
        second: [E] rows of those that they end at.
    """

    def __init__(self, edges: Sequence[Edge], row_of: dict[int, int]) -> None:
        """Stack edges; `row_of` says where in an `Estimate` a segment stands."""
        self.first = np.array([row_of[e.first.segment] for e in edges], np.intp)
        self.second = np.array([row_of[e.second.segment] for e in edges], np.intp)
        self._in_first = _stack([e.first.T_segment_camera for e in edges])
        self._in_second = _stack([e.second.T_segment_camera for e in edges])
        self._measured = _stack([e.T_first_second for e in edges])
        covariance = np.array([e.covariance for e in edges]).reshape(-1, 6, 6)
        # W with Wᵀ · W the inverse of the covariance.
        symmetric = (covariance + covariance.transpose(0, 2, 1)) / 2
        self._whitening: Array = np.linalg.inv(np.linalg.cholesky(symmetric))
        self._log_ratio = np.array([e.log_ratio for e in edges])
        self._ratio_weight = 1 / np.array([e.log_ratio_sigma for e in edges])  # 0: not measured

    def __len__(self) -> int:
        return len(self.first)

    def whitened(self, at: Estimate, with_scale: bool) -> Array:
        """Errors in standard deviations, [E, 6] or, of scales too, [E, 7]."""
        return self._whiten(self._errors(at)[0], at, with_scale)

    def errors(self, at: Estimate) -> Array:
        """Errors as they are, [E, 6], metres and radians."""
        return self._errors(at)[0]

    def linearised(self, at: Estimate, with_scale: bool) -> tuple[Array, Array, Array]:
        """Return whitened errors [E, D] and their derivatives by both nodes, [E, D, D] each."""
        errors, relative, turn = self._errors(at)
        of_first, of_second = self.jacobians(at, errors, relative, turn, with_scale)
        whitening = self._whitening
        jacobians = []
        for jacobian, sign in ((of_first, -1.0), (of_second, 1.0)):
            whitened = whitening @ jacobian
            if with_scale:
                row = np.zeros((len(self), 1, 7))
                row[:, 0, 6] = sign * self._ratio_weight
                whitened = np.concatenate((whitened, row), axis=1)
            jacobians.append(whitened)
        return self._whiten(errors, at, with_scale), jacobians[0], jacobians[1]

    def jacobians(
        self, at: Estimate, errors: Array, relative: Array, turn: Array, with_scale: bool
    ) -> tuple[Array, Array]:
        """Derivatives of `errors` by both nodes, [E, 6, 6 or 7] each."""
        log, measured = errors[:, 3:], self._measured
        measured_turn = measured[:, :3, :3].transpose(0, 2, 1)
        right = inverse_right_jacobian(log)
        by_first, by_second = np.zeros((2, len(self), 6, 6))
        by_first[:, :3, :3] = -measured_turn
        by_first[:, :3, 3:] = measured_turn @ hat(relative)
        by_first[:, 3:, 3:] = -right @ turn.transpose(0, 2, 1)
        by_second[:, :3, :3] = measured_turn @ turn
        by_second[:, 3:, 3:] = right
        of_first = by_first @ _carried(self._in_first, at.log_scale[self.first], with_scale)
        of_second = by_second @ _carried(self._in_second, at.log_scale[self.second], with_scale)
        if with_scale:  # of the measured translation, which has the first segment's scale
            grown = np.exp(at.log_scale[self.first])[:, None] * measured[:, :3, 3]
            of_first[:, :3, 6] -= _times(measured_turn, grown)
        return of_first, of_second

    def unwhitened(self, at: Estimate) -> tuple[Array, Array, Array]:
        """Errors [E, 6] and their derivatives by both nodes, [E, 6, 6] each, as they are."""
        errors, relative, turn = self._errors(at)
        return errors, *self.jacobians(at, errors, relative, turn, with_scale=False)

    def _errors(self, at: Estimate) -> tuple[Array, Array, Array]:
        """Errors [E, 6], translation [E, 3] and rotation [E, 3, 3] between the cameras."""
        first, second, measured = self.first, self.second, self._measured
        turn_i, place_i = _camera(at, first, self._in_first)
        turn_j, place_j = _camera(at, second, self._in_second)
        back = turn_i.transpose(0, 2, 1)
        turn, relative = back @ turn_j, _times(back, place_j - place_i)
        measured_turn = measured[:, :3, :3].transpose(0, 2, 1)
        grown = np.exp(at.log_scale[first])[:, None] * measured[:, :3, 3]
        translation = _times(measured_turn, relative - grown)
        return np.hstack((translation, logarithm(measured_turn @ turn))), relative, turn

    def _whiten(self, errors: Array, at: Estimate, with_scale: bool) -> Array:
        whitened = _times(self._whitening, errors)
        if not with_scale:
            return whitened
        ratio = at.log_scale[self.second] - at.log_scale[self.first] - self._log_ratio
        return np.hstack((whitened, (self._ratio_weight * ratio)[:, None]))


def _camera(at: Estimate, nodes: npt.NDArray[np.intp], inside: Array) -> tuple[Array, Array]:
    """Rotations [E, 3, 3] and places [E, 3] of cameras that stand `inside` their nodes."""
    grown = np.exp(at.log_scale[nodes])[:, None] * inside[:, :3, 3]
    place = at.translation[nodes] + _times(at.rotation[nodes], grown)
    return at.rotation[nodes] @ inside[:, :3, :3], place


def _carried(inside: Array, log_scale: Array, with_scale: bool) -> Array:
    """How a camera inside a node moves with it, [E, 6, 6 or 7]."""
    back = inside[:, :3, :3].transpose(0, 2, 1)
    grown = np.exp(log_scale)[:, None] * inside[:, :3, 3]
    result = np.zeros((len(inside), 6, 7 if with_scale else 6))
    result[:, :3, :3] = result[:, 3:, 3:6] = back
    result[:, :3, 3:6] = -back @ hat(grown)
    if with_scale:
        result[:, :3, 6] = _times(back, grown)
    return result


def _stack(transforms: Sequence[Transform]) -> Array:
    return np.array(transforms, np.float64).reshape(-1, 4, 4)


def _times(matrices: Array, vectors: Array) -> Array:
    result: Array = np.einsum("nij,nj->ni", matrices, vectors)
    return result
