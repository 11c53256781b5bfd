# SPDX-License-Identifier: Apache-2.0
"""Least squares over a graph: Levenberg and Marquardt's steps on sparse normal equations.

Nodes that are held stand still. Of a connected piece without any the first one does, for nothing
says where a whole piece is. With scales, what a segment's own scale is worth is a measurement of
each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csc_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from ttt3r_ros.pose_graph.graph import Edge
from ttt3r_ros.pose_graph.residuals import Edges, Estimate
from ttt3r_ros.pose_graph.rotations import Array

_DAMPING_UP, _DAMPING_DOWN = 10.0, 0.1
_LEAST_DAMPING, _MOST_DAMPING = 1e-9, 1e6  # of the diagonal
_WEAK = 1e-9  # added to the diagonal: of scales of which nothing is said

_Rows = npt.NDArray[np.intp]


class LeastSquares:
    """The edges of a graph, to be solved with one set of weights after another."""

    def __init__(
        self,
        segments: Sequence[int],
        edges: Sequence[Edge],
        scale_sigma: float = math.inf,
        held: Collection[int] = (),
    ) -> None:
        """Stack the edges.

        Args:
            segments: the nodes, in the order of rows of an `Estimate`.
            edges: between these.
            scale_sigma: standard deviation of the logarithm of what a segment's scale is wrong
                by. Finite: scales are solved for too, Sim(3); infinite: they stay, SE(3).
            held: segments that stand still.
        """
        self.row_of = {segment: row for row, segment in enumerate(segments)}
        self.edges = Edges(edges, self.row_of)
        self._with_scale = math.isfinite(scale_sigma)
        self._scale_weight = 1 / scale_sigma**2
        still = np.array([segment in held for segment in segments], bool)
        unknowns = _unknowns(still, self.edges, self._with_scale)
        self._unknowns = unknowns  # [N, 6 or 7], -1 for what stays
        self._count = int(unknowns.max(initial=-1)) + 1
        self._pattern = _Pattern(
            unknowns[self.edges.first], unknowns[self.edges.second], self._count
        )

    def squared_errors(self, at: Estimate) -> Array:
        """What each edge adds to the sum, [E], unweighted, in variances."""
        result: Array = (self.edges.whitened(at, self._with_scale) ** 2).sum(axis=1)
        return result

    def solve(
        self, start: Estimate, weights: Array, most_steps: int, least_change: float = 1e-6
    ) -> Estimate:
        """Find the least sum of weighted squares near `start`.

        Args:
            start: [N] nodes.
            weights: [E] of the edges, 0 to 1.
            most_steps: after which the result is as good as it is.
            least_change: of the cost, as a share, below which nothing more is tried.
        """
        at, damping = start, 0.0
        cost = self._cost(at, weights)
        for _ in range(most_steps if self._count else 0):
            system, gradient = self._normal_equations(at, weights)
            accepted = False
            while not accepted and damping <= _MOST_DAMPING:
                trial = at.moved(self._step(system, gradient, damping))
                trial_cost = self._cost(trial, weights)
                accepted = trial_cost <= cost * (1 + 1e-12)
                if not accepted:
                    damping = max(_LEAST_DAMPING * 1e3, damping * _DAMPING_UP)
            if not accepted:
                break
            gain, at, cost = cost - trial_cost, trial, trial_cost
            damping = damping * _DAMPING_DOWN if damping > _LEAST_DAMPING else 0.0
            if gain <= least_change * max(cost, 1e-9):
                break
        return at

    def expected_errors(
        self, at: Estimate, weights: Array, edges: Sequence[Edge]
    ) -> list[tuple[Array, Array]]:
        """What new edges say against the graph, and how wrong both may be; SE(3) only.

        Returns:
            For each new edge its error [6], and the covariance [6, 6] that it should have: the
            graph's of the pose between its cameras, and its own.
        """
        new = Edges(edges, self.row_of)
        errors, *derivatives = new.unwhitened(at)
        columns = np.zeros((self._count, len(edges), 6))
        for rows, jacobians in zip((new.first, new.second), derivatives, strict=True):
            for k, (unknowns, jacobian) in enumerate(
                zip(self._unknowns[rows], jacobians, strict=True)
            ):
                free = unknowns >= 0
                columns[unknowns[free], k] += jacobian.T[free]
        spread = columns
        if self._count:
            system, _ = self._normal_equations(at, weights)
            spread = _solver(system)(columns.reshape(self._count, -1)).reshape(columns.shape)
        return [
            (errors[k], columns[:, k].T @ spread[:, k] + edge.covariance)
            for k, edge in enumerate(edges)
        ]

    def _cost(self, at: Estimate, weights: Array) -> float:
        own = self._scale_weight * float(at.log_scale @ at.log_scale) if self._with_scale else 0.0
        return (float(weights @ self.squared_errors(at)) + own) / 2

    def _normal_equations(self, at: Estimate, weights: Array) -> tuple[csc_matrix, Array]:
        errors, first, second = self.edges.linearised(at, self._with_scale)
        weighted_first = weights[:, None, None] * first
        weighted_second = weights[:, None, None] * second
        blocks = (
            first.transpose(0, 2, 1) @ weighted_first,
            first.transpose(0, 2, 1) @ weighted_second,
            second.transpose(0, 2, 1) @ weighted_first,
            second.transpose(0, 2, 1) @ weighted_second,
        )
        gradients = tuple(
            np.einsum("eij,ei->ej", jacobian, errors)
            for jacobian in (weighted_first, weighted_second)
        )
        matrix, vector = self._pattern.matrix(blocks), self._pattern.vector(gradients)
        if self._with_scale:
            scales = self._unknowns[:, 6]
            vector[scales] += self._scale_weight * at.log_scale
            own = np.full(len(scales), self._scale_weight)
            matrix = matrix + coo_matrix((own, (scales, scales)), shape=matrix.shape).tocsc()
        return matrix, vector

    def _step(self, system: csc_matrix, gradient: Array, damping: float) -> Array:
        if damping:
            system = system + damping * _diagonal(system)
        step = np.zeros(self._unknowns.shape)
        free = self._unknowns >= 0
        step[free] = _solver(system)(-gradient)[self._unknowns[free]]
        return step


class _Pattern:
    """Where the blocks of edges go in the normal equations."""

    def __init__(self, first: _Rows, second: _Rows, count: int) -> None:
        """Take the unknowns [E, D] of both ends, of `count` in all; -1 for what stays."""
        self._ends, self._count = (first, second), count
        self._kept, rows, columns = [], [], []
        for row, column in ((first, first), (first, second), (second, first), (second, second)):
            at, across = np.broadcast_arrays(row[:, :, None], column[:, None, :])
            kept = (at >= 0) & (across >= 0)
            self._kept.append(kept)
            rows.append(at[kept])
            columns.append(across[kept])
        every = np.arange(count)  # the weak diagonal
        self._rows = np.concatenate([*rows, every])
        self._columns = np.concatenate([*columns, every])

    def matrix(self, blocks: Sequence[Array]) -> csc_matrix:
        """Sum blocks [E, D, D]: of first and first, first and second, and so on."""
        values = [block[kept] for block, kept in zip(blocks, self._kept, strict=True)]
        values.append(np.full(self._count, _WEAK))
        where = (self._rows, self._columns)
        shape = (self._count, self._count)
        return coo_matrix((np.concatenate(values), where), shape=shape).tocsc()

    def vector(self, parts: Sequence[Array]) -> Array:
        """Sum parts [E, D] of both ends."""
        result = np.zeros(self._count)
        for end, part in zip(self._ends, parts, strict=True):
            kept = end >= 0
            np.add.at(result, end[kept], part[kept])
        return result


def _solver(system: csc_matrix) -> Callable[[Array], Array]:
    """Factorise a symmetric positive definite matrix."""
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    solve: Callable[[Array], Array] = factors.solve
    return solve


def _diagonal(system: csc_matrix) -> csc_matrix:
    diagonal, every = system.diagonal(), np.arange(system.shape[0])
    return coo_matrix((diagonal, (every, every)), shape=system.shape).tocsc()


def _unknowns(still: npt.NDArray[np.bool_], edges: Edges, with_scale: bool) -> _Rows:
    """Numbers of the unknowns, [N, 6 or 7]; -1 for poses that stand still.

    Those of nodes that are held, `still` [N], and of the first node of each piece without any.
    """
    nodes = len(still)
    links = coo_matrix((np.ones(len(edges)), (edges.first, edges.second)), shape=(nodes, nodes))
    _, piece = connected_components(links, directed=False)
    _, first = np.unique(piece, return_index=True)
    fixed = still.copy()
    fixed[first[~np.isin(piece[first], piece[still])]] = True
    free = np.ones((nodes, 7 if with_scale else 6), bool)
    free[fixed, :6] = False
    result = np.full(free.shape, -1, np.intp)
    result[free] = np.arange(free.sum())
    return result
