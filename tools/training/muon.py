# SPDX-License-Identifier: Apache-2.0
"""The Muon optimiser: momentum whose matrix is made orthogonal before each step.

The singular values of the momentum are brought near one by a polynomial iteration
(Newton-Schulz, quintic; Keller Jordan 2024, https://kellerjordan.github.io/posts/muon/).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tools.training import workers

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


@torch.no_grad()
def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices [N, m, n] with their singular values brought near one, in bfloat16."""
    a, b, c = _COEFFICIENTS
    x: Tensor = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for matrices [m, n] and stacks of matrices, as of one weight for q, k and v.

    Args:
        parameters: matrices; `stacked` of them are several matrices above one another.
        stacked: how many matrices a parameter holds, by its id; one if it is not there.
        lr: step length as a share of the matrix's own size, times sqrt(max(1, m / n)).
        momentum: Nesterov's.
        weight_decay: times lr.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        stacked: dict[int, int],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "wd": weight_decay})
        self._stacked = stacked

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; matrices of equal shapes are orthogonalised together, by all processes."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(momentum, group["momentum"])
                parts = self._stacked.get(id(parameter), 1)
                for target, part in zip(parameter.chunk(parts), update.chunk(parts), strict=True):
                    shapes.setdefault((part.shape[0], part.shape[1]), []).append((target, part))
            for (rows, columns), pairs in shapes.items():
                together = torch.stack([update for _, update in pairs])
                updates = workers.joined(orthogonal(workers.my_share(together)), len(pairs))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (target, _), update in zip(pairs, updates, strict=True):
                    target.mul_(1 - group["lr"] * group["wd"]).sub_(rate * update.to(target))
