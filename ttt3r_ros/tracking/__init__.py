# SPDX-License-Identifier: Apache-2.0
"""Image by image: segments, their scale, whether the camera is still followed and how well."""
