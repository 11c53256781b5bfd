# SPDX-License-Identifier: Apache-2.0
"""Data sets in the folders that they are published in, one module for each format.

`find_recordings` finds what can be evaluated below a path; `folder` reads it, whatever the
format.
"""

from ttt3r_ros.recordings.datasets.find import FORMATS, find_recordings

__all__ = ["FORMATS", "find_recordings"]
