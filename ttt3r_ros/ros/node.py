#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The node: images in, poses, depth and map out.

Two threads: the executor's, in which everything here runs, receives images, requests and
parameters and never waits; `worker` steps the network.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import rclpy
import torch
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import (  # type: ignore[attr-defined]  # Humble has ClockType only here
    Clock,
    ClockType,
    JumpThreshold,
    TimeJump,
)
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from rclpy.timer import Timer
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ttt3r_ros.config import ConfigError
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.diagnostics import DiagnosticsPublisher, Health
from ttt3r_ros.ros.inputs import Guard, Inputs
from ttt3r_ros.ros.log import send_logs_to
from ttt3r_ros.ros.outputs import Outputs
from ttt3r_ros.ros.parameters import change_settings, declare_parameters, read_parameters
from ttt3r_ros.ros.robot_odometry import RobotOdometry
from ttt3r_ros.ros.save_services import SaveServices
from ttt3r_ros.ros.session_service import SessionService
from ttt3r_ros.ros.told_pose import TOPICS, PoseListener
from ttt3r_ros.ros.transforms import FrameConflict, FrameListener
from ttt3r_ros.ros.worker import Worker
from ttt3r_ros.types import CheckpointError, SessionError

_WARNING_PERIOD_S = 5.0
_HINT_PERIOD_S = 60.0
_DIAGNOSIS_WITHIN_S = 3.0  # sent once a second, of which discovery may take the first


class TTT3RNode(LifecycleNode):
    """Configure loads the weights, activate subscribes, deactivate pauses, cleanup frees."""

    def __init__(self, **kwargs: Any) -> None:
        """Declare parameters and topics.

        Args:
            kwargs: of `rclpy.node.Node`, but for the name.

        Raises:
            ConfigError: a parameter is out of bounds.
            ParameterException: a parameter has the wrong type or is out of bounds.
        """
        # First of all, for rclpy calls `destroy_node` even if what follows fails.
        self._worker: Worker | None = None  # while configured
        self._problem = ""  # what has kept the node from being configured or active
        # While active:
        self._listener: FrameListener | None = None
        self._active_timers: list[Timer] = []
        super().__init__("ttt3r_node", **kwargs)
        send_logs_to(self.get_logger())
        declare_parameters(self)
        self._config, self._node_config = read_parameters(self)
        self._guard = Guard(self)
        self._inputs = Inputs(self, self._guard, self._node_config)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._saving = SaveServices(self, lambda: self._worker)
        SessionService(self, lambda: self._worker, lambda: self._config.session)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
            ),
            post_callback=self._on_clock_jump,
        )
        try:
            self._outputs = Outputs(self, self._node_config.map_frame)
            self._diagnostics = DiagnosticsPublisher(self, self._health)
        except RuntimeError as error:
            raise ConfigError(f"qos_overrides: {error}") from error

    def start(self) -> bool:
        """Configure and activate, if `autostart`; return whether it went well."""
        if not self._node_config.autostart:
            return True
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def diagnosis_heard(self) -> Future[None]:
        """Return what is done once somebody has heard one more message on /diagnostics."""
        return self._diagnostics.heard()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights and start the worker."""
        self._problem = ""
        try:
            pipeline = Pipeline.from_config(self._config)
        except (CheckpointError, ConfigError, SessionError, torch.OutOfMemoryError) as error:
            return self._failure("configure", str(error))
        except Exception as error:  # rclpy would end the transition without a word
            return self._failure("configure", repr(error), traceback.format_exc())
        self._outputs.forget()
        queue_size = self._node_config.queue_size if self._config.process_all_images else 1
        self._worker = Worker(
            self, pipeline, self._outputs, self._node_config, queue_size, self._give_up
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe; images are taken once TF has had time to arrive."""
        self._problem = ""
        try:
            self._begin_listening()
        except (ParameterException, RuntimeError) as error:  # of qos_overrides
            self._stop_listening()
            return self._failure("activate", str(error))
        except Exception as error:  # as in on_configure
            self._stop_listening()
            return self._failure("activate", repr(error), traceback.format_exc())
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take no more images; state and map stay."""
        self._stop_listening()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free network, state and map, on the device too."""
        self._end_worker()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the worker; nothing is heard of the node from then on."""
        self._diagnostics.stop()
        self._end_worker()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node may be configured again."""
        self._problem = "a transition failed"
        self._end_worker()
        return super().on_error(state)

    def destroy_node(self) -> None:
        """End the worker, then the node."""
        self._end_worker()
        super().destroy_node()

    def _begin_listening(self) -> None:
        config = self._node_config
        self._outputs.forget_frames()
        listener = self._listener = FrameListener(
            self, self._guard.around("/tf", self._on_transform)
        )
        worker = self._configured_worker()
        odometry = None
        if config.odom_source == "tf" or self._config.scale_source == "odom":
            odometry = RobotOdometry(
                self.get_logger(), config.odometry_tf_frame, worker.odometry_came
            )
        worker.prepare(
            self._inputs.camera,
            self._inputs.masks,
            lambda frame: listener.find_extrinsics(
                frame, self._node_config, self._outputs.own_edges
            ),
            odometry,
        )
        self._subscribe(odometry)
        self._active_timers = [
            self._create_timer(1 / self._config.map.publish_hz, self._on_map_due),
            self._create_timer(1 / config.path.rate_hz, self._on_path_due),
        ]
        if config.tf_wait_s:
            self._tf_timer = self._create_timer(config.tf_wait_s, self._on_tf_waited)
            self._active_timers.append(self._tf_timer)
        else:
            worker.resume()

    def _failure(self, to: str, reason: str, details: str = "") -> TransitionCallbackReturn:
        """Say why a transition cannot be made; the log has the details, if there are any."""
        self._problem = f"cannot {to}: {reason}"
        self.get_logger().error(f"cannot {to}:\n{details}" if details else self._problem)
        return TransitionCallbackReturn.FAILURE

    def _subscribe(self, odometry: RobotOdometry | None) -> None:
        self._inputs.listen_to_camera(self._on_image, self._config, self._node_config)
        listen = self._inputs.listen
        for topic in TOPICS:
            told = PoseListener(
                topic,
                self._node_config.map_frame,
                self.get_logger(),
                self._configured_worker().set_pose,
            )
            listen(PoseWithCovarianceStamped, topic, told.update, QoSProfile(depth=10))
        if odometry:
            qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
            if self._node_config.odometry_tf_frame:
                listen(TFMessage, "/tf", odometry.update_tf, qos)
            else:
                listen(Odometry, "odometry", odometry.update, qos)

    def _stop_listening(self) -> None:
        while self._active_timers:
            self.destroy_timer(self._active_timers.pop())
        if self._listener is not None:
            self._inputs.close()
            self._listener.stop()
            self._listener = None
        if self._worker is not None:
            self._worker.pause()

    def _end_worker(self) -> None:
        self._stop_listening()
        if self._worker is not None:
            pipeline = self._worker.end()
            self._worker = None
            if self._node_config.save_on_shutdown:
                self._saving.save_all(pipeline, self._node_config)
            del pipeline
            gc.collect()
            with suppress(RuntimeError):  # after a CUDA graph that could not be recorded
                torch.cuda.empty_cache()

    def _configured_worker(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("the node is not configured")
        return self._worker

    def _on_image(self, message: Image | CompressedImage) -> None:
        if self._configured_worker().image(message) and self._config.process_all_images:
            self.get_logger().warning(
                f"more images wait than queue_size, {self._node_config.queue_size}: the oldest go",
                throttle_duration_sec=_WARNING_PERIOD_S,
            )

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._worker is not None
        if self._worker is not None:
            self._worker.reset("~/reset")
            response.message = "the next image is the first one"
        else:
            response.message = "the node is not configured, there is nothing to reset"
        return response

    def _on_clock_jump(self, jump: TimeJump) -> None:
        # With process_all_images the images' own stamps tell of it, in their place among them.
        if self._worker is not None and not self._config.process_all_images:
            self._worker.clock_jumped(self.get_clock().now().nanoseconds)

    def _on_parameters(self, parameters: Sequence[Parameter[Any]]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in parameters}
        try:
            self._config, self._node_config = (
                change_settings(self._config, values),
                change_settings(self._node_config, values),
            )
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._worker is not None:
            self._worker.configure(self._config, self._node_config)
        return SetParametersResult(successful=True)

    def _on_transform(self, edge: TransformStamped) -> None:
        config = self._node_config
        if self._outputs.is_rival(edge, config) and self.executor:
            remedy = (
                "end that, or set publish_map_tf to false or odom_frame to another one"
                if edge.child_frame_id == config.odom_frame
                else "if that is the robot's own tree, set base_frame, or a longer tf_wait_s; else "
                "end that, or set odom_source to tf or publish_odom_tf to false"
            )
            conflict = FrameConflict(
                f"somebody else publishes {edge.header.frame_id} -> {edge.child_frame_id} too, "
                f"which breaks the tree of frames: {remedy}"
            )
            # Not here, in the callback of a subscription that goes with it.
            self.executor.create_task(self._give_up, conflict)

    def _on_tf_waited(self) -> None:
        self._tf_timer.cancel()
        self._configured_worker().resume()

    def _on_map_due(self) -> None:
        if self._outputs.map_is_wanted():
            self._configured_worker().send_map()

    def _on_path_due(self) -> None:
        if self._outputs.path_is_wanted():
            self._configured_worker().send_path()
        if self._outputs.graph_is_wanted():
            self._outputs.graph(self._configured_worker().graph)

    def _health(self) -> Health:
        worker, is_active = self._worker, self._listener is not None
        return Health(
            lifecycle="active" if is_active else "inactive" if worker else "unconfigured",
            problem=self._problem,
            device=str(worker.device) if worker else self._config.device,
            counts=worker.counts() if worker else None,
            status=self._outputs.last_status if worker else None,
            loops=worker.loops if worker else None,
            rejection=self._outputs.last_rejection,
            max_points=self._config.map.max_points,
            base_frame=worker.base_frame if worker else "",
            process_all_images=self._config.process_all_images,
            camera_info=self._inputs.camera.in_use,
            mask=self._inputs.masks.in_use,
            failures=self._guard.failures.total(),
            failure=self._guard.last,
            wrong_type=self._wrong_type() if is_active else "",
        )

    def _wrong_type(self) -> str:
        """Return what to set if no image has come, as others come there; the log says it, too."""
        counts = self._worker.counts() if self._worker else None
        hint = "" if counts is None or counts.received else self._inputs.wrong_type()
        if hint:
            self.get_logger().warning(hint, throttle_duration_sec=_HINT_PERIOD_S)
        return hint

    def _give_up(self, error: Exception) -> None:
        if self._listener is None:  # given up already
            return
        self._problem = f"deactivated: {error}"
        self.get_logger().error(self._problem)
        self.trigger_deactivate()
        if isinstance(error, torch.OutOfMemoryError):
            self.trigger_cleanup()  # gives the memory back, and a map that may be half a map

    def _create_timer(self, period_s: float, callback: Callable[[], None]) -> Timer:
        # Not by ROS time, which stands still while no bag plays.
        return self.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))


def main(args: list[str] | None = None) -> int:
    """Run the node until it is shut down; return the process's exit status."""
    rclpy.init(args=args)
    try:
        node = TTT3RNode()
    except (ConfigError, ParameterException) as error:
        print(f"ttt3r_node: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if not node.start():
            executor.spin_until_future_complete(node.diagnosis_heard(), _DIAGNOSIS_WITHIN_S)
            return 1
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # else it is what was in work when the process was told to end
            raise
    finally:
        node.destroy_node()
        executor.shutdown(0.0)  # or its end, after the context's, is a traceback
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
