# SPDX-License-Identifier: Apache-2.0
"""A linear layer that lets the faster of two libraries multiply on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ttt3r_ros.network.precision import LOWER

# torch multiplies float32 matrices with Intel's MKL where it is built with that. On CPUs of others
# MKL leaves AVX-512 unused: 97 GFLOP/s on a core of an AMD EPYC 9005 (768 x 1024 times
# 1024 x 3072), of which oneDNN, which torch has for convolutions, makes 211.
_ONEDNN_BESIDE_MKL = (
    torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class Linear(nn.Linear):
    """`torch.nn.Linear`, by oneDNN for float32 on a CPU when no gradients are recorded.

    Weights kept in half the precision make the product one in theirs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., in_features] to [..., out_features]."""
        if self.weight.dtype in LOWER.values():
            x = x.to(self.weight.dtype)
        if not self._by_onednn(x):
            return super().forward(x)
        multiply = torch.ops.mkldnn._linear_pointwise  # no gradients, no autocast
        out: Tensor = multiply(x, self.weight, self.bias, "none", [], "")
        return out

    def _by_onednn(self, x: Tensor) -> bool:
        return (
            _ONEDNN_BESIDE_MKL
            and not torch.compiler.is_compiling()  # it cannot compile the operator
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and self.weight.is_contiguous()  # others make it hang
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )
