# SPDX-License-Identifier: Apache-2.0
"""Keyframes, and finding the camera again among them."""
