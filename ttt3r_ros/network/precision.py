# SPDX-License-Identifier: Apache-2.0
"""How precisely the network multiplies: in which type weights are kept, and whether TF32 may be.

The heads multiply in float32 or TF32 whatever is chosen, for depths are exponentials of what they
say, and the pose head in float32. docs/performance.md has the deviations that the choice rests on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

LOWER = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = ("float32", "tf32", *LOWER)

# Of the two ways to say it, torch 2.9 and newer refuse the old one once somebody has used the new.
_NAME = "fp32_precision" if hasattr(torch.backends.cuda.matmul, "fp32_precision") else "allow_tf32"
_ALLOWED = {"fp32_precision": ("ieee", "tf32"), "allow_tf32": (False, True)}
_CONVOLUTIONS = getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)
_SWITCHES = ((torch.backends.cuda.matmul, _NAME), (_CONVOLUTIONS, _NAME))


def precision_of(name: str, device: torch.device) -> str:
    """Return the one of PRECISIONS that the setting `dtype` means on a device.

    Raises:
        ValueError: the device cannot.
    """
    cuda = device.type == "cuda"
    if name == "auto":
        return "tf32" if cuda else "float32"
    if name not in PRECISIONS:
        raise ValueError(f"dtype: must be auto or one of {PRECISIONS}, got {name!r}")
    if name == "tf32" and not cuda:
        raise ValueError(f"dtype: only CUDA devices multiply in tf32, the device is {device}")
    return name


@contextmanager
def tf32_products(allowed: bool) -> Iterator[None]:
    """While it lasts, say whether CUDA devices may round factors of float32 products to TF32.

    The setting is one of the whole process: what other threads multiply meanwhile must not mind,
    and only one thread at a time may step networks.
    """
    before = [getattr(*switch) for switch in _SWITCHES]
    for owner, name in _SWITCHES:
        setattr(owner, name, _ALLOWED[name][allowed])
    try:
        yield
    finally:
        for switch, value in zip(_SWITCHES, before, strict=True):
            setattr(*switch, value)


def tf32_is_allowed() -> bool:
    """Whether products of matrices may be rounded at present."""
    owner, name = _SWITCHES[0]
    return bool(getattr(owner, name) == _ALLOWED[name][True])
