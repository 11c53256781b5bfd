# SPDX-License-Identifier: Apache-2.0
"""Loops: segments as nodes of a graph, solved so that a place seen again is in one place only."""
