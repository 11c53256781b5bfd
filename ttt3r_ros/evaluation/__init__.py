# SPDX-License-Identifier: Apache-2.0
"""Runs without ROS: images from bags and folders, and how good the answers are."""
