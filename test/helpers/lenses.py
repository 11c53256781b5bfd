# SPDX-License-Identifier: Apache-2.0
"""Lenses, their camera_info, and pictures of known rays through them."""

from __future__ import annotations

import cv2
import numpy as np
from robot import camera_info_message

WIDTH, HEIGHT = 128, 72  # not of the network's shape: it is cropped


K = np.array([[90.0, 0, 62.0], [0, 92.0, 37.0], [0, 0, 1]])


P = np.array([[80.0, 0, 65.0], [0, 84.0, 34.0], [0, 0, 1]])


LENSES = {
    "none": ("plumb_bob", [0.0] * 5),
    "plumb_bob": ("plumb_bob", [-0.25, 0.08, 0.001, -0.001, 0.0]),
    "rational_polynomial": ("rational_polynomial", [0.3, -0.1, 0, 0, 0.01, 0.5, -0.05, 0.0]),
    "equidistant": ("equidistant", [-0.05, 0.01, 0.0, 0.0]),
}


RAYS = np.array([(-0.3, -0.2, 1.0), (0.35, 0.15, 1.0), (0.1, -0.25, 1.0)])


def lens_info(model="plumb_bob", d=(), p=P):
    message = camera_info_message(WIDTH, HEIGHT)
    message.distortion_model, message.d = model, list(d)
    message.k, message.r = K.flatten(), np.eye(3).flatten()
    message.p = np.hstack([p, np.zeros((3, 1))]).flatten()
    return message


def picture_of(rays, model, d, matrix):
    """A dark picture with a bright spot where each ray falls through the lens."""
    zero, points, d = np.zeros(3), rays[:, None], np.array(d)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    seen = project(points, zero, zero, matrix, d)[0][:, 0]
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    grey = np.full((HEIGHT, WIDTH), 20.0)
    for u, v in seen:
        grey += 200 * np.exp(-((column - u) ** 2 + (row - v) ** 2) / (2 * 1.5**2))
    return np.repeat(grey[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)
