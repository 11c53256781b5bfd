# SPDX-License-Identifier: Apache-2.0
"""The services `~/save_map`, `~/save_trajectory` and `~/save_session`, and saving at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from ttt3r_ros.config import NodeConfig
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.output_thread import set_result
from ttt3r_ros.ros.saving import SAVED, NothingToSaveError, take
from ttt3r_ros.ros.worker import Worker


class SaveServices:
    """Answers when a file is whole; images go on meanwhile."""

    def __init__(self, node: Node, worker: Callable[[], Worker | None]) -> None:
        """Create the services.

        Args:
            node: that they belong to.
            worker: the node's present worker; None while the node is not configured.
        """
        self._node = node
        self._worker = worker
        for what in SAVED:
            self._create(what)

    def save_all(self, pipeline: Pipeline, node_config: NodeConfig) -> None:
        """Write all there is; an error in one keeps neither the others nor the end from coming."""
        log = self._node.get_logger()
        for what in SAVED:
            try:
                path = take(what, pipeline, node_config)()
            except NothingToSaveError as error:
                log.info(f"{what} not saved: {error}")
            except Exception as error:  # whatever it is, the node is to end
                log.error(f"{what} not saved: {error}")
            else:
                log.info(f"saved {path}")

    def _create(self, what: str) -> None:
        async def save(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            return await self._save(what, response)

        # It waits, which keeps all others of its callback group waiting.
        alone = MutuallyExclusiveCallbackGroup()
        self._node.create_service(Trigger, f"~/save_{what}", save, callback_group=alone)

    async def _save(self, what: str, response: Trigger.Response) -> Trigger.Response:
        worker = self._worker()
        if worker is None:
            response.message = "the node is not configured, there is nothing to save"
            return response
        saved: Future[Path | Exception] = Future()
        worker.save(what, partial(set_result, self._node, saved))
        outcome = await saved
        response.success = isinstance(outcome, Path)
        response.message = str(outcome)
        # Two calls, for rclpy keeps each place in the code to its first severity.
        if response.success:
            self._node.get_logger().info(f"~/save_{what}: {response.message}")
        else:
            self._node.get_logger().error(f"~/save_{what}: {response.message}")
        return response
