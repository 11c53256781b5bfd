# SPDX-License-Identifier: Apache-2.0
"""Numbers as they are read: few digits, without their unit, which `glossary` knows."""

from __future__ import annotations

import math
from typing import Any

from ttt3r_ros.evaluation.report.glossary import unit_of

NONE = "–"
_DIGITS = 3  # that count
_MOST_DECIMALS = 5
_THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
_FACTORS = {"%": 100.0, "MiB": 2.0**-20}


def number(value: float) -> str:
    """Return a number with three digits that count, or all of its whole part; NaN is a dash."""
    if not math.isfinite(value):
        return NONE
    if value == 0 or abs(value) >= 0.5 * 10.0**-_MOST_DECIMALS:
        decimals = _DIGITS - 1 - math.floor(math.log10(abs(value))) if value else 0
        text = f"{value:,.{min(max(decimals, 0), _MOST_DECIMALS)}f}"
        return text.replace(",", _THIN_SPACE).replace("-", "−")
    return f"{value:.1e}".replace("-", "−")


def shown(key: str, value: Any) -> str:
    """Return a figure in the unit `unit_of(key)`; what is not there is a dash."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(shown(key, entry) for entry in value)
    if not isinstance(value, (int, float)):
        return str(value)
    unit = unit_of(key)
    if isinstance(value, int) and unit not in _FACTORS:
        return f"{value:,}".replace(",", _THIN_SPACE).replace("-", "−")
    scaled = float(value) * (1 if key.endswith("_percent") else _FACTORS.get(unit, 1))
    return f"{scaled:.1f}" if unit == "%" else number(scaled)
