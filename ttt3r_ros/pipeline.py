# SPDX-License-Identifier: Apache-2.0
"""The one way of a frame: time guard, tracker, map. Node, offline runs and benchmarks drive it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ttt3r_ros.config import Config
from ttt3r_ros.geometry import Transform
from ttt3r_ros.io.trajectory import BoundedTrajectory
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.mapping.insertion import insert_image
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.pose_graph.exchange import Answer, Correction, Query, what_moves
from ttt3r_ros.pose_graph.loop_closer import LoopCloser
from ttt3r_ros.session import MAX_POSES, Session, load_session, made_for
from ttt3r_ros.tracking.time_guard import StampStep, TimeGuard
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import (
    Covariance,
    Frame,
    FrameResult,
    MapMoves,
    SessionError,
    TrackingState,
)

_log = logging.getLogger(__name__)


class Pipeline:
    """Everything that happens to an image, with or without ROS.

    Attributes:
        config: the settings in force. It may be replaced between two images; settings that are
            not marked `runtime` keep their first values.
        model: the network, and the device that everything happens on.
        loops: what is known of places seen again, to be read.
    """

    def __init__(self, model: Model, config: Config) -> None:
        """Set up the tracker with an empty map, or with the map of a session.

        Raises:
            SessionError: the session that the settings name cannot be used.
        """
        self.config = config
        self.model = model
        self._guard = TimeGuard()
        self._tracker = Tracker(model, config)
        self.loops = LoopCloser(model.network, config.loop, config.process_all_images)
        self._query: Query | None = None  # about the last image
        self._answer: tuple[int, Answer] | None = None  # and the image before which it takes effect
        self._is_told = False  # somebody has set the pose since the last image with a place
        self._moves: list[MapMoves] = []  # of the map, for the next result
        self._images = 0
        self._lost = False
        self._map_lock = threading.Lock()
        self._map_resets = 0  # of the tracker; images of before do not go into the map
        self.last_reset_reason = ""
        self._trajectory = BoundedTrajectory(MAX_POSES)
        if config.session:
            self.map = self._resume(self.session_reader(config.session)(), config.session)
            self._map_resets = self._tracker.resets
        else:
            self.map = VoxelMap(config.map.voxel_size_m, config.map.max_points, model.device)

    @classmethod
    def from_config(cls, config: Config) -> Pipeline:
        """Load the weights that the settings name, say what must be said about them, warm up.

        Raises:
            CheckpointError: the file of weights cannot be used.
            ConfigError: the device does not exist, or cannot what the settings want of it.
            SessionError: the session that they name cannot be used.
        """
        model = load_model(config)
        if model.note:
            _log.warning("%s", model.note)
        pipeline = cls(model, config)
        pipeline._tracker.warm_up()
        return pipeline

    def process(self, frame: Frame, left_out_ns: int | None = None) -> FrameResult:
        """Track one image and merge its points into the map, if its place there is known.

        Arguments and errors are those of `track`; after an error the map has not changed.
        """
        result = self.track(frame, left_out_ns)
        self.integrate(result)
        self.ask_for_loops()
        return result

    def track(self, frame: Frame, left_out_ns: int | None = None) -> FrameResult:
        """Do the first half of `process`: find out where an image was taken.

        Args:
            frame: the image.
            left_out_ns: stamp of the image before it, if that one was left out because this one
                came first: a gap is where no image came, not where none was processed.

        Raises:
            FrameRejected: the image is out of time order or too small; nothing has changed.
            TrackingError: the network gave no usable answer.
        """
        self._tracker.check(frame)
        step = self._guard.judge(frame.stamp_ns, left_out_ns, self.config.time)
        if step is StampStep.RESTART:
            back_s = -self._guard.ahead_s(frame.stamp_ns)
            self.reset(f"image stamps jumped back by {back_s:.3f} s")
        elif step is StampStep.RETURN:
            ahead_s = -self._guard.ahead_s(frame.stamp_ns)
            self._tracker.start_segment(f"the image before was stamped {ahead_s:.3f} s ahead")
        elif step is StampStep.GAP:
            gap_s = self._guard.ahead_s(frame.stamp_ns, left_out_ns)
            self._tracker.start_segment(f"no image for {gap_s:.3f} s")
        self._guard.accept(frame.stamp_ns, step)
        self._leave_alone(self.config.localization_only)
        self._close_loops()
        result = self._tracker.step(frame)
        self._images += 1
        self._tell(result)
        if result.is_localized:
            self._trajectory.append(result.stamp_ns, result.T_map_camera, result.segment)
        view = self._tracker.view
        if self._query is not None:  # nobody has asked: the next image may
            self.loops.withdraw(self._query)
        self._query = None
        if view is not None:
            if self._is_told:  # what was tracked says nothing of where that is
                view = replace(view, begin_covariance=None)
            self._query = self.loops.offer(view, self._tracker.places.keyframes)
            if self._is_told:
                self.loops.anchor(view, result.map_pose_covariance)
                self._is_told = False
        if self._moves:
            result = replace(result, moves=tuple(self._moves))
            self._moves.clear()
        return result

    def integrate(self, result: FrameResult) -> None:
        """Do the second half of `process`: merge an image's points into the map.

        To be called once for each image, in order; it may be called in another thread while the
        next image is tracked. It does nothing if there has been a reset since the image.
        """
        # Nobody else finds the map half written: whatever writes into it ends by reading something
        # back from the device.
        with self._map_lock:
            if result.resets != self._map_resets:
                return
            self._move_map(result.moves)
            if result.is_localized and not self.config.localization_only:
                insert_image(self.map, result, self.config)

    def ask_for_loops(self) -> None:
        """Find out whether the last image's place was seen before, if it is worth asking.

        To be called after each image, by whoever tracks, once its pose is out: it takes the time
        of some steps, but not often (`loop.budget`). Whatever it raises, tracking may go on: the
        question is then one without an answer.
        """
        query, self._query = self._query, None
        if query is None:
            return
        try:
            answer = self.loops.answer(query)
        except BaseException:
            self.loops.withdraw(query)
            raise
        self._answer = (self._images + self.config.loop.delay_images, answer)

    def finish(self) -> tuple[MapMoves, ...]:
        """After the last image, take what is due and solve all loops anew; map and path move.

        Returns:
            How, in order, for whoever keeps poses of earlier results.
        """
        if self._answer:
            self._answer = (self._images, self._answer[1])
        self._close_loops()
        self._take(self.loops.finish())
        moves = tuple(self._moves)
        self.settle_map()
        return moves

    def reset(self, reason: str) -> None:
        """Forget state, map and time; the next image is the first at a new origin."""
        _log.info("reset: %s", reason)
        self._tracker.reset()
        self.loops.reset()
        self._forget()
        with self._map_lock:
            self._map_resets = self._tracker.resets
            self.map.clear()
        self.last_reset_reason = reason

    def place_first_camera(self, T_odom_camera: Transform) -> None:
        """Say where the first camera stands in the odometry frame.

        A change after the first image is a reset.
        """
        if np.array_equal(T_odom_camera, self._tracker.T_odom_first_camera):
            return
        if self._guard.is_fresh:
            self._tracker.place_first_camera(T_odom_camera)
        else:
            self._tracker.T_odom_first_camera = T_odom_camera
            self.reset("the camera's extrinsics changed")

    def set_pose(self, T_map_camera: Transform, covariance: Covariance) -> None:
        """Take it from somebody where the last image's camera stands in the map; between images.

        odom and what was mapped stay where they are, and no place is looked for any more.

        Args:
            T_map_camera: [4, 4].
            covariance: [6, 6] of it, about the map's axes.
        """
        for query in (self._query, self._answer and self._answer[1].query):
            if query:  # its answer would say where the camera was before
                self.loops.withdraw(query)
        self._query = self._answer = None
        self._tracker.set_pose(T_map_camera, covariance)
        self._is_told = True
        _log.info("the camera's pose in the map was set to %s", T_map_camera[:3, 3].round(3))

    def session(self) -> Session:
        """Copy what it takes to come back to this map; tracking may go on while it is written.

        Raises:
            SessionError: no place is remembered yet.
        """
        self.settle_map()
        keyframes = self._tracker.places.keyframes
        if not keyframes:
            raise SessionError("no place is remembered yet that one could come back to")
        return Session(
            keyframes,
            self.map.to_tensors(),
            self.trajectory(),
            self._trajectory.segments(),
            self.loops.memory(),
        )

    def settle_map(self) -> None:
        """Move the map between two images where keyframes and path have moved already."""
        with self._map_lock:
            self._move_map(self._moves)
        self._moves.clear()

    def trajectory(self) -> list[tuple[int, Transform]]:
        """Return a copy: stamps in nanoseconds and T_map_camera, subsampled evenly to a bound."""
        return self._trajectory.poses()

    def session_reader(self, folder: str) -> Callable[[], Session]:
        """Return what reads a session for `go_on_from`, in any thread, while images are tracked.

        It raises SessionError if the session cannot be used, or OSError for the file of weights.
        """
        path = Path(folder).expanduser()
        state = self.model.network.initial_state().to("cpu")
        config, image_size = self.config, self.model.image_size

        def read() -> Session:
            owner = made_for(config, image_size)
            return load_session(path, owner, state, config.map.voxel_size_m)

        return read

    def go_on_from(self, session: Session, name: str) -> None:
        """Leave this map for a session's, between two images; the next one has a new origin.

        Whatever this raises, as where the device has no memory for two maps, changes nothing.

        Args:
            session: from `session_reader`.
            name: of it, for the log.
        """
        fresh = self._resume(session, name)
        with self._map_lock:
            self._map_resets = self._tracker.resets
            self.map = fresh
        self.last_reset_reason = f"session {name}"

    def _resume(self, session: Session, name: str) -> VoxelMap:
        """Take all of a session but its map, which is returned."""
        device = self.model.device
        fresh = VoxelMap.from_tensors(session.map_tensors, self.config.map.max_points, device)
        keyframes = [keyframe.to(device) for keyframe in session.keyframes]
        self._tracker.resume_from(keyframes)
        self.loops.resume(session.loops)
        self._forget()
        for pose, segment in zip(session.trajectory, session.path_segments, strict=True):
            self._trajectory.append(*pose, segment)
        _log.info("%s: looking for one of its %d places", name, len(keyframes))
        return fresh

    def _forget(self) -> None:
        """Forget time, path and whatever is under way."""
        self._guard.reset()
        self._query = self._answer = None
        self._is_told = False
        self._moves.clear()
        self._lost = False
        self._trajectory = BoundedTrajectory(MAX_POSES)

    def clock_jumped(self, now_ns: int) -> None:
        """Reset with the next image if the clock is now far before the last one, and it is, too.

        One message of the clock alone may be an odd one; an image whose own stamp has already told
        of the jump has reset everything before.
        """
        back_s = -self._guard.ahead_s(now_ns)
        if back_s > 0 and back_s >= self.config.time.jump_back_s:
            self._guard.doubt(now_ns)

    def _leave_alone(self, is_left: bool) -> None:
        """Let all that is mapped stay as it is from now on, or let it grow and move again."""
        places = self._tracker.places
        if is_left and not places.is_closed:
            self._tracker.part_segment()
        places.is_closed = is_left
        self.loops.hold(is_left)

    def _close_loops(self) -> None:
        """Take an answer that is due; the map moves before the next image comes into it."""
        correction = None
        if self._answer and self._images >= self._answer[0]:
            correction = self.loops.apply(self._answer[1])
            self._answer = None
        self._take(correction)

    def _take(self, correction: Correction | None) -> None:
        """Move keyframes, path and camera, and let old segments become one."""
        moves = what_moves(correction.T_by_segment if correction else {}, self.loops.merge())
        if moves.T_by_segment or moves.numbers:
            self._tracker.places.move(moves.T_by_segment, moves.numbers)
            self._trajectory.move(moves.T_by_segment, moves.numbers)
            self._moves.append(moves)
        if correction:
            for loop in correction.loops[:1]:
                words = "loop: back at a place of segment %d, which moves the camera by %.3f m"
                _log.info(words, loop.first.segment, correction.moved_m)
            self._tracker.correct(correction.T_newest, correction.camera_covariance)

    def _move_map(self, moves: Iterable[MapMoves]) -> None:
        for each in moves:
            self.map.move(each.T_by_segment)
            self.map.relabel(each.numbers)

    def _tell(self, result: FrameResult) -> None:
        """Log what a user should know of an image."""
        lost_before, self._lost = self._lost, result.state is TrackingState.LOST
        if self._lost and not lost_before:
            _log.warning("tracking is lost: %s", result.reason)
        if result.boundary_reason:
            _log.info("segment %d: %s", result.segment, result.boundary_reason)
