# SPDX-License-Identifier: Apache-2.0
"""Files that the package writes and reads back: trajectories, point clouds, whole or not at all."""
