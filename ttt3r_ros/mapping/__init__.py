# SPDX-License-Identifier: Apache-2.0
"""The accumulated map and its files; torch and numpy only."""
