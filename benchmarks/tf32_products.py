# SPDX-License-Identifier: Apache-2.0
"""What TF32 does to the factors of products, on devices that do not have it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ttt3r_ros.network.precision import tf32_is_allowed

_aten = torch.ops.aten
# Which arguments are factors. What attention multiplies with after its softmax is not rounded.
_FACTORS = {
    _aten.linear: (0, 1),
    _aten.conv2d: (0, 1),
    _aten.conv_transpose2d: (0, 1),
    _aten.scaled_dot_product_attention: (0, 1, 2),
    # What these are made of, which is what is called while gradients may be recorded.
    _aten.addmm: (1, 2),
    _aten.mm: (0, 1),
    _aten.bmm: (0, 1),
    _aten.convolution: (0, 1),
    _aten._scaled_dot_product_flash_attention_for_cpu: (0, 1, 2),
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _FACTORS[torch.ops.mkldnn._linear_pointwise] = (0, 1)


def rounded(x: Tensor) -> Tensor:
    """Round float32 numbers to the 10 bits of mantissa that TF32 has, halves to even."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class Tf32Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, products have rounded factors wherever TF32 is allowed.

    Attributes:
        calls: products that had rounded factors.
    """

    def __init__(self) -> None:
        """Round nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the operator, with rounded factors if it is a product."""
        factors = _FACTORS.get(func.overloadpacket, ())
        if factors and tf32_is_allowed():
            self.calls += 1
            args = tuple(rounded(a) if i in factors else a for i, a in enumerate(args))
        return func(*args, **(kwargs or {}))
