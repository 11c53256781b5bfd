# SPDX-License-Identifier: Apache-2.0
"""The service `~/load_session`: go on in a saved map while the node runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.output_thread import set_result
from ttt3r_ros.ros.worker import Worker
from ttt3r_ros.session import Session


class SessionService:
    """Answers when the session's map is the node's; images go on while it is read."""

    def __init__(
        self, node: Node, worker: Callable[[], Worker | None], folder: Callable[[], str]
    ) -> None:
        """Create the service.

        Args:
            node: that it belongs to.
            worker: the node's present worker; None while the node is not configured.
            folder: what the parameter `session` says now.
        """
        self._node = node
        self._worker = worker
        self._folder = folder
        # It waits, which keeps all others of its callback group waiting.
        alone = MutuallyExclusiveCallbackGroup()
        node.create_service(Trigger, "~/load_session", self._load, callback_group=alone)

    async def _load(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        worker, folder = self._worker(), self._folder()
        if worker is None:
            response.message = "the node is not configured; once it is, it begins with session"
        elif not folder:
            response.message = "session: the parameter is empty: set it to a session's folder"
        else:
            loaded: Future[str | Exception] = Future()
            done = partial(set_result, self._node, loaded)
            worker.request(partial(read_beside, folder, worker.request, done))
            outcome = await loaded
            response.success = isinstance(outcome, str)
            response.message = str(outcome) or repr(outcome)
        if not response.success:
            self._node.get_logger().error(f"~/load_session: {response.message}")
        return response


def read_beside(
    folder: str,
    request: Callable[[Callable[[Pipeline], None]], bool],
    done: Callable[[str | Exception], None],
    pipeline: Pipeline,
) -> None:
    """Read a session in a thread of its own; the pipeline goes on in it between two images.

    To be called between two images. Whatever cannot be done leaves everything as it was.

    Args:
        folder: the session.
        request: lets something be done with the pipeline between two images; False: never.
        done: called once, in some thread, with words for the user or what went wrong.
        pipeline: that is to go on in the session's map.
    """

    def take(session: Session, pipeline: Pipeline) -> None:
        try:
            pipeline.go_on_from(session, folder)
        except Exception as error:  # whatever it is, there has to be an answer
            done(error)
        else:
            done(f"{folder}: looking for one of its {len(session.keyframes)} places")

    def run() -> None:
        try:
            session = read()
        except Exception as error:  # as above
            done(error)
        else:
            if not request(partial(take, session)):
                done(RuntimeError("the node was cleaned up meanwhile"))

    try:
        read = pipeline.session_reader(folder)
    except Exception as error:  # as above
        done(error)
    else:
        threading.Thread(target=run, name="ttt3r_session").start()
