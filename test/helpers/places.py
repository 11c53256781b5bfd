# SPDX-License-Identifier: Apache-2.0
"""Where things lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "test" / "helpers"
GOLDEN = ROOT / "test" / "data" / "golden"
