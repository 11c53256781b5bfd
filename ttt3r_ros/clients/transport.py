# SPDX-License-Identifier: Apache-2.0
"""Lets a process of this project publish large images without losing them.

By default Fast DDS has 512 KiB of shared memory per participant: on such a writer nearly all best
effort images of 900 KB are lost. The shipped profile makes it 64 MiB. Only the publishing process
needs it; other middlewares ignore it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROFILE = "fastdds_large_images.xml"
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
# Fast DDS 2, which these have, knows the first variable alone; Fast DDS 3 warns about it.
DISTRIBUTIONS_OF_FAST_DDS_2 = ("humble", "iron", "jazzy")


def use_large_image_profile() -> Path | None:
    """Set Fast DDS's environment variable to the shipped profile, for this process and its own.

    To be called before the first ROS context of the process is initialised. Where the user has set
    one of the variables, nothing is changed.

    Returns:
        The profile, or None if the user has set one or none is shipped with this installation.
    """
    if any(os.environ.get(variable) for variable in VARIABLES):
        return None
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    folders = [
        Path(__file__).parents[2] / "config",  # of a source tree
        *(Path(prefix) / "share/ttt3r_ros/config" for prefix in prefixes if prefix),
    ]
    for folder in folders:
        if (folder / PROFILE).is_file():
            old = os.environ.get("ROS_DISTRO") in DISTRIBUTIONS_OF_FAST_DDS_2
            os.environ[VARIABLES[0 if old else 1]] = str(folder / PROFILE)
            return folder / PROFILE
    return None
