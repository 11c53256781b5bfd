# SPDX-License-Identifier: Apache-2.0
"""Reading a `torch.save` file without running anything in it.

The official files carry, beside the tensors, the settings the training was started with, as
pickled objects of packages that need not be installed here. torch's restricted unpickler does the
reading. Every class of a list of harmless modules is replaced by `Inert`, which keeps its
arguments and runs nothing; a file that names anything else is refused. What the file means is
`checkpoint`'s business.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.torch_version import TorchVersion

from ttt3r_ros.types import CheckpointError

# Before it, a file could run code or corrupt memory: CVE-2025-32434, CVE-2026-24747.
_SAFE_TORCH = "2.10"

# Names met in pickled training settings: containers, paths, dates, NumPy scalars.
_INERT_NAMES = re.compile(
    r"""(argparse|datetime|omegaconf|pathlib|typing)\..*
    | builtins\.(bool|bytes|dict|float|frozenset|int|list|object|range|slice|str|tuple)
    | collections\.defaultdict
    | numpy\.(dtype|ndarray|dtypes\..*|_?core\.multiarray\.(scalar|_reconstruct))
    """,
    re.VERBOSE,
)


class Inert:
    """Stands for an object of a class that is not loaded."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Inert:
        """Keep the arguments; pickles make objects with and without `__init__`."""
        self = super().__new__(cls)
        self.args = args
        self.state = None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertDict:
    """Makes a plain dict: torch's unpickler fills no other mapping of a foreign class."""

    def __new__(cls, *args: Any) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


def read_torch_file(path: Path) -> dict[str, Any]:
    """Return the dictionary in a `torch.save` file, its tensors mapped from the file.

    Raises:
        CheckpointError: no such dictionary, a damaged file, one that names a function or class
            which is not on the list above, or a torch whose restricted unpickler has holes.
    """
    if TorchVersion(torch.__version__) < _SAFE_TORCH:
        raise CheckpointError(
            f"{path}: reading .pth files safely needs torch {_SAFE_TORCH} or newer, this is "
            f"{torch.__version__}; a file converted to .safetensors elsewhere loads here too"
        )
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(16)
        raise CheckpointError(
            f"{path}: not a torch.save file, or one cut off before its end (begins with {start!r})"
        )
    # A damaged or hostile pickle can raise almost any exception from inside the unpickler.
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:
        raise CheckpointError(f"{path}: damaged torch.save file: {_reason(error)}") from None
    refused = sorted(name for name in names if not _INERT_NAMES.fullmatch(name))
    if refused:
        raise CheckpointError(
            f"{path}: refused, the file names code that weights do not need: "
            f"{', '.join(refused[:5])} (nothing in it was run)"
        )
    replacements: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_InertDict if name == "collections.defaultdict" else Inert, name) for name in names
    ]
    try:
        with torch.serialization.safe_globals(replacements):
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointError(f"{path}: damaged torch.save file: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: expected a dictionary with 'model' and 'args', got {type(content).__name__}"
        )
    return content


def strings_in(content: Any) -> Iterator[str]:
    """Yield every string in an object read by `read_torch_file`; cycles are allowed."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, dict):
                waiting.extend(item.values())
            elif isinstance(item, (list, tuple, set)):
                waiting.extend(item)
            elif isinstance(item, Inert):
                waiting.extend((item.args, item.state))


def _reason(error: Exception) -> str:
    """Return one line of an error, without torch's advice to load the file unsafely."""
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        text = text.partition("WeightsUnpickler error:")[2] or text.partition(".")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
