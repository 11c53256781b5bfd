# SPDX-License-Identifier: Apache-2.0
"""Computing part of the network in a lower precision; TF32 too on devices that do not have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import LOWER, tf32_is_allowed, tf32_products

FLOAT32 = "float32"
TF32 = "tf32"
DTYPES = (TF32, "bfloat16", "float16")
PARTS = ("encoder", "decoders", "memory", "heads")
ALL, ALL_BUT_HEADS = "all", "all but heads"
CHOICES = (*PARTS, ALL_BUT_HEADS, ALL)

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


def methods_of(network: Network, part: str) -> list[tuple[nn.Module, str]]:
    """The methods that make up a part of the network, each with its owner."""
    memory = network.pose_retriever
    methods: dict[str, list[tuple[nn.Module, str]]] = {
        "encoder": [(network, "encode")],
        "decoders": [(network, "decode")],
        "memory": [(memory, "appearance"), (memory, "read"), (memory, "write")],
        "heads": [(network, "predict")],
    }
    return [method for name in PARTS if covers(part, name) for method in methods[name]]


def covers(part: str, name: str) -> bool:
    """Whether what is switched as `part` has that one of the PARTS in it."""
    return part in (name, ALL) or (part == ALL_BUT_HEADS and name != "heads")


@contextmanager
def computing(network: Network, dtype: str, part: str) -> Iterator[None]:
    """While it lasts, a part of the network computes in a dtype and the rest in float32."""
    device_type = network.pose_token.device.type
    lower = LOWER.get(dtype)
    tf32 = dtype == TF32

    def switched(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            network.tf32 = tf32  # which `encode` looks at
            try:
                with (
                    tf32_products(tf32),
                    torch.autocast(device_type, lower, enabled=lower is not None),
                ):
                    return method(*args, **kwargs)
            finally:
                network.tf32 = False

        return call

    methods = methods_of(network, part)
    for owner, name in methods:
        setattr(owner, name, switched(getattr(owner, name)))
    try:
        with Tf32Products() if tf32 and device_type == "cpu" else nullcontext():
            yield
    finally:
        for owner, name in methods:
            delattr(owner, name)  # the class's own is behind it
