# SPDX-License-Identifier: Apache-2.0
"""The error of everything that compares with the truth."""

from __future__ import annotations


class EvaluationError(ValueError):
    """A comparison that cannot be made; the message says what to change."""
