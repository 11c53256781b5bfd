# SPDX-License-Identifier: Apache-2.0
"""From a camera's message to the network's image: pixel encodings, lens, size and intrinsics."""
