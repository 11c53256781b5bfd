# SPDX-License-Identifier: Apache-2.0
"""The one error of everything that reads or writes weights."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A file of weights that cannot be used; the message names the file and the reason."""
