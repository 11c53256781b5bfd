# SPDX-License-Identifier: Apache-2.0
"""Fewer rows of what is too much to draw."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def stride(count: int, most: int) -> int:
    """Return the least step that leaves at most so many of `count` rows.

    Where neighbours stand together, as in a map or a path, every place is thinned alike; and from
    one message to the next the same rows stay as long as the step does, so nothing shimmers.

    Raises:
        ValueError: `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"at most {most} rows: must be at least 1")
    return max(1, -(-count // most))


def thinned(rows: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """Return every first, second, third, ... row [N, ...], at most so many; a view."""
    return rows[:: stride(len(rows), most)]
