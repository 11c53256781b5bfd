# SPDX-License-Identifier: Apache-2.0
"""The error of `ttt3r view`."""

from __future__ import annotations


class ViewError(ValueError):
    """There is nothing to show, or nothing to show it with; the message says what to do."""
