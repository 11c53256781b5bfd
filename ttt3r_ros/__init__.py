# SPDX-License-Identifier: Apache-2.0
"""Dense mapping and tracking from one camera with a recurrent network, with and without ROS 2.

The version is written here and in package.xml. Importing this package loads nothing else.
"""

from __future__ import annotations

from pkgutil import extend_path

# The build puts the generated messages, ttt3r_ros.msg, into another folder than this source.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
