# SPDX-License-Identifier: Apache-2.0
"""How uncertain the camera's pose and velocity are: 6x6 covariances as ROS has them.

A covariance is row-major [6, 6] in the order x y z, rotation about x, about y, about z, in m and
rad. Positions and rotations are about the fixed axes of one frame: the parent's for poses, the
child's for velocities.

The constants are what errors of the shipped model had on simulated robots' paths; the figures
behind them are printed by `benchmarks/evaluate_covariance.py`.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

import numpy as np

from ttt3r_ros.geometry import Transform, Vector, inverse, rotation_vector, transform
from ttt3r_ros.tracking.signals import Signals
from ttt3r_ros.types import Covariance, TrackingState

# Standard deviations of the motion from one image to the next. Those of the translation are along
# the motion; d is the depth. Each is the root of a sum of squares.
_TRANSLATION_FLOOR = 0.002  # of d
_TRANSLATION_BY_MOTION = 0.08  # of the translation
_TRANSLATION_BY_TURN = 0.07  # of d per rad
_TRANSLATION_BY_JUMP = 0.5  # of what is off constant velocity
_ACROSS = 0.45  # across the motion, as a share of that along it
_ROTATION_FLOOR_RAD = 0.002
_ROTATION_BY_TURN = 0.05  # of the rotation
_ROTATION_BY_MOTION = 0.07  # rad per d of translation
_ROTATION_BY_JUMP = 0.3  # of what is off constant velocity
# Factors on these.
_UNCERTAIN = 1.5
_LOW_CONFIDENCE = 0.5  # of the usual above 1; above it confidence told nothing of the errors
_MOST_BY_CONFIDENCE = 5.0
_HISTORY = 50  # images that make the usual confidence
# Errors of images near in time are alike: over many images they add up as if they were independent
# and so much larger.
_ALIKE = 2.0
# What is the same wrong share of the motion all the time.
_SCALE = 0.1  # of translations
_TURN_SCALE = 0.05  # of rotations
# Nothing is known of the motion between images that were not followed.
_BLIND_SPEED = 0.12  # d per second
_BLIND_TURN_RAD = 0.4  # per second
# Errors of recognized places for each axis, see `benchmarks/evaluate_relocalization.py`.
_RELOCALIZED = 0.015  # of d
_RELOCALIZED_RAD = 0.015
_MOST = np.array([1e6] * 3 + [math.pi**2] * 3 + [1.0] * 2)  # variances


def moved(covariance: Covariance, T_new_old: Transform) -> Covariance:
    """Transfer a covariance between two points that are fixed to each other.

    A velocity's goes from the camera to a base on the same body with `T_base_camera`. A pose's is
    about the axes of its parent frame, which stay: `transform(np.eye(3), p_camera - p_base)` with
    both places in that frame. With `transform(R_map_odom, np.zeros(3))` a pose's goes to another
    parent frame.

    Args:
        covariance: [6, 6] of the old point, in its axes.
        T_new_old: [4, 4] the old point and axes in the new ones.
    """
    adjoint = _adjoint(T_new_old)
    return _symmetric(adjoint @ covariance @ adjoint.T)


UNKNOWN: Covariance = np.diag(_MOST[:6])  # of a pose of which nothing is known


def relocalized_covariance(depth_m: float) -> Covariance:
    """The covariance [6, 6] of a pose in the map where a place has been recognized.

    Relative to what the map has there; what the map itself is wrong by is not in it.

    Args:
        depth_m: a typical depth of the place.
    """
    place = _RELOCALIZED * (depth_m if math.isfinite(depth_m) and depth_m > 0 else 1.0)
    return np.diag([place**2] * 3 + [_RELOCALIZED_RAD**2] * 3)


class PoseCovariance:
    """The covariance of a stream's camera pose in the odometry frame, image by image.

    The first camera is where the frame begins, so it is known. Every step adds noise, and errors
    of rotation become errors of position with the distance travelled. Wrong shares of all
    translations and of all rotations are two more unknowns, which are constant: on the way back
    what they did cancels, and the position gets surer again. There is no loop closure.

    Attributes:
        pose: [6, 6] of the last image's camera, about the axes of the odometry frame.
        twist: [6, 6] of its velocity, in the camera's own axes, in m/s and rad/s.
    """

    def __init__(self) -> None:
        """Start with an empty history."""
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next image is the first one."""
        # Of the position, the rotation, the wrong shares of translations and of rotations.
        self._all = np.diag([0.0] * 6 + [_SCALE**2, _TURN_SCALE**2])  # [8, 8]
        self._T_odom_camera: Transform | None = None
        self._depth_m = 0.0
        self._blind_s = 0.0  # since the last image that was followed
        self._confidence = deque[float](maxlen=_HISTORY)  # above 1
        self.twist = np.zeros((6, 6))

    @property
    def pose(self) -> Covariance:  # noqa: D102 - said of the class
        return self._all[:6, :6].copy()

    def set(self, T_odom_camera: Transform, covariance: Covariance) -> None:
        """Take the camera's pose [4, 4] to be known this well [6, 6], after a relocalization."""
        self._T_odom_camera = T_odom_camera
        self._all[:6] = self._all[:, :6] = 0.0
        self._all[:6, :6] = _symmetric(covariance)
        self._blind_s = 0.0
        self._all = _bounded(self._all)

    def update(
        self, T_odom_camera: Transform, signals: Signals, state: TrackingState, depth_m: float
    ) -> None:
        """Take the next image.

        Args:
            T_odom_camera: [4, 4]; not looked at when LOST.
            signals: of the image.
            state: of the image. Whatever has happened up to an image that is INITIALIZING and not
                the first, or LOST, was not followed.
            depth_m: a typical depth; the last one is kept when LOST, or not a positive number.
        """
        dt_s = signals.dt_s or 0.0
        last = self._T_odom_camera
        if state is not TrackingState.LOST:
            self._T_odom_camera = T_odom_camera
            if math.isfinite(depth_m) and depth_m > 0:
                self._depth_m = depth_m
        if last is None or state in (TrackingState.INITIALIZING, TrackingState.LOST):
            self._go_blind(dt_s if last is not None else 0.0)
        else:
            self._follow(last, T_odom_camera, self._step(last, T_odom_camera, signals, state), dt_s)
        if state is not TrackingState.LOST:
            self._blind_s = 0.0
            if math.isfinite(signals.confidence):
                self._confidence.append(signals.confidence - 1)
        self._all = _bounded(self._all)

    def _step(
        self, last: Transform, now: Transform, signals: Signals, state: TrackingState
    ) -> Covariance:
        """The covariance of one step's error, about the axes of the odometry frame."""
        depth, way = self._depth_m, now[:3, 3] - last[:3, 3]
        distance = float(np.linalg.norm(way))
        angle = float(np.linalg.norm(rotation_vector(inverse(last) @ now)))
        along = math.hypot(
            _TRANSLATION_FLOOR * depth,
            _TRANSLATION_BY_MOTION * distance,
            _TRANSLATION_BY_TURN * depth * angle,
            _TRANSLATION_BY_JUMP * depth * (signals.translation_jump or 0.0),
        )
        turn = math.hypot(
            _ROTATION_FLOOR_RAD,
            _ROTATION_BY_TURN * angle,
            _ROTATION_BY_MOTION * distance / depth if depth else 0.0,
            _ROTATION_BY_JUMP * (signals.rotation_jump_rad or 0.0),
        )
        share = np.eye(3)
        if distance > 0:
            u = way / distance
            share = _ACROSS**2 * share + (1 - _ACROSS**2) * np.outer(u, u)
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = along**2 * share
        covariance[3:, 3:] = turn**2 * np.eye(3)
        return self._doubt(signals.confidence, state) ** 2 * covariance

    def _doubt(self, confidence: float, state: TrackingState) -> float:
        """How much larger than usual errors are expected to be."""
        factor = _UNCERTAIN if state is TrackingState.UNCERTAIN else 1.0
        if not self._confidence:
            return factor
        expected = _LOW_CONFIDENCE * median(self._confidence)
        least = expected / _MOST_BY_CONFIDENCE**2
        above_1 = least if math.isnan(confidence) else max(confidence - 1, least)
        return factor * math.sqrt(max(1.0, expected / above_1)) if expected > 0 else factor

    def _follow(self, last: Transform, now: Transform, step: Covariance, dt_s: float) -> None:
        """Add a step, whose own error is `step`, to the end of the chain."""
        way = now[:3, 3] - last[:3, 3]
        change = np.eye(8)
        change[:6, :6] = _adjoint(transform(np.eye(3), -way))
        change[:3, 6] = way
        change[3:6, 7] = last[:3, :3] @ rotation_vector(inverse(last) @ now)
        self._all = change @ self._all @ change.T
        self._all[:6, :6] += _ALIKE**2 * step
        if dt_s > 0:
            in_camera = moved(step, transform(now[:3, :3].T, np.zeros(3)))
            self.twist = _bounded(in_camera / dt_s**2)

    def _go_blind(self, dt_s: float) -> None:
        """Let time pass in which the camera may have moved at a constant, unknown velocity."""
        speed = _BLIND_SPEED * self._depth_m
        rates = np.diag([speed**2] * 3 + [_BLIND_TURN_RAD**2] * 3)
        self._all[:6, :6] += rates * ((self._blind_s + dt_s) ** 2 - self._blind_s**2)
        self._blind_s += dt_s
        if not self._depth_m:  # nothing is known of distances yet
            rates[:3, :3] = np.diag(_MOST[:3])
        self.twist = _bounded(rates)


class Uncertainty:
    """The covariances of a stream: of the camera in odom, in the map, and since its segment began.

    Attributes:
        odom: of the pose in odom, and of the velocity.
        map: of the pose in the map.
    """

    def __init__(self) -> None:
        """Start with an empty history."""
        self.odom, self.map, self._segment = PoseCovariance(), PoseCovariance(), PoseCovariance()

    def reset(self) -> None:
        """Forget everything."""
        for part in (self.odom, self.map, self._segment):
            part.reset()

    def update(
        self,
        T_odom_camera: Transform,
        T_map_camera: Transform,
        signals: Signals,
        state: TrackingState,
    ) -> None:
        """Take the next image; both poses are [4, 4], see `PoseCovariance.update`."""
        depth = math.nan if signals.depth is None else signals.depth
        self.odom.update(T_odom_camera, signals, state, depth)
        self.map.update(T_map_camera, signals, state, depth)
        self._segment.update(T_odom_camera, signals, state, depth)

    def begin_segment(self, T_odom_camera: Transform) -> Covariance:
        """Return how unsure a segment's first camera is in the one before, [6, 6]; begin anew."""
        covariance = self._segment.pose
        self._segment.set(T_odom_camera, np.zeros((6, 6)))
        return covariance


def _adjoint(T: Transform) -> Covariance:
    """[6, 6] of translations before rotations."""
    rotation, (x, y, z) = T[:3, :3], T[:3, 3]
    adjoint = np.zeros((6, 6))
    adjoint[:3, :3] = adjoint[3:, 3:] = rotation
    adjoint[:3, 3:] = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) @ rotation
    return adjoint


def _bounded(matrix: Vector) -> Vector:
    """The matrix with variances that are too large shrunk, and with them what depends on them."""
    most = _MOST[: len(matrix)]
    factor = np.sqrt(most / np.maximum(np.diag(matrix), most))
    return _symmetric(factor[:, None] * matrix * factor)


def _symmetric(matrix: Vector) -> Vector:
    return (matrix + matrix.T) / 2
