# SPDX-License-Identifier: Apache-2.0
"""The package's own log lines, in ROS's log."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

_PACKAGE = logging.getLogger("ttt3r_ros")


def send_logs_to(logger: RcutilsLogger) -> None:
    """Pass on what the package logs through Python's `logging` to a node's logger alone."""
    _PACKAGE.handlers = [_Handler(logger)]
    _PACKAGE.propagate = False
    _PACKAGE.setLevel(logging.INFO)


class _Handler(logging.Handler):
    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy ties a severity to each line of source that logs, so each needs a line of its own.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)
