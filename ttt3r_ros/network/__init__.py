# SPDX-License-Identifier: Apache-2.0
"""The recurrent reconstruction network: torch only, no ROS, no files except `checkpoint`."""
