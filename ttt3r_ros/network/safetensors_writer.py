# SPDX-License-Identifier: Apache-2.0
"""Writing the safetensors format with every tensor where the processor likes it.

The safetensors library orders tensors by name, and one tensor of 28 bytes then leaves all that
follow it unaligned. Mapped from such a file they go through other matrix kernels, and the results
differ from those of the source in the last bits. Here tensors of odd sizes come last. Reading
is the library's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes; a cache line and the widest vector register
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], dtype: torch.dtype
) -> None:
    """Write tensors as `dtype`, one at a time, so that no copy of all of them is in memory.

    Args:
        path: the file to write.
        tensors: by name, floating point, of any device.
        metadata: texts by name.
        dtype: float32, float16 or bfloat16.

    Raises:
        ValueError: a value is not finite in `dtype`; the message names the tensor.
        OSError: the file cannot be written.
    """
    sizes = {name: tensor.numel() * dtype.itemsize for name, tensor in tensors.items()}
    order = sorted(tensors, key=lambda name: (sizes[name] % _ALIGNMENT != 0, name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        start, end = end, end + sizes[name]
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            stored = tensors[name].detach().to("cpu", dtype).contiguous()
            if not stored.isfinite().all():
                raise ValueError(f"{name} has values that are not finite as {dtype}")
            file.write(stored.flatten().view(torch.uint8).numpy().data)
