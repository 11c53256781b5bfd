# SPDX-License-Identifier: Apache-2.0
"""Networks that have shapes and no weights yet: those of a file or drawn ones take their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within this, modules are made on the meta device, and no weights are drawn."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Draws no weights.

    On the meta device nothing would be drawn either, but to find that out takes longer than to
    read the shipped model, and loads torch's compiler: 1.5 s of CPU at every start.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call what is called, but for the functions of `torch.nn.init`."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
