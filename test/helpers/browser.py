# SPDX-License-Identifier: Apache-2.0
"""What a browser is told by a page, read from its web socket in viser's wire format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import viser
import zstandard
from websockets.sync.client import connect

from ttt3r_ros.viewer.page import Page

PATIENCE_S = 30.0  # ten times what anything here takes


class Browser:
    """Shows nothing, and knows what it would show.

    Attributes:
        things: properties by the names of things in space; `position`, `wxyz` and `visible` too.
        panel: properties by label, of what has one.
        text: of the panel.
        camera: where it looks from and to.
    """

    def __init__(self, page: Page) -> None:
        host, port = page.address
        version = f"viser-v{viser.__version__}"
        self._socket = connect(f"ws://{host}:{port}", subprotocols=[version], max_size=None)
        self._props: dict[str, dict[str, Any]] = {}  # by viser's own ids
        self.things: dict[str, dict[str, Any]] = {}
        self.camera: dict[str, list[float]] = {}

    @property
    def panel(self) -> dict[str, dict[str, Any]]:
        return {props["label"]: props for props in self._props.values() if "label" in props}

    @property
    def text(self) -> str:
        return "".join(props.get("content", "") for props in self._props.values())

    def close(self) -> None:
        self._socket.close()

    def wait(self, condition: Callable[[Browser], Any]) -> None:
        """Listen until a condition on this object holds, or fail."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition(self):
            assert time.monotonic() < deadline_s, "waited in vain"
            for message in _messages(self._socket.recv(timeout=PATIENCE_S)):
                self._heed(message)

    def tell_camera(self) -> None:
        """Say where it looks from, as a page does first of all."""
        lens = {"fov": 1.0, "near": 0.01, "far": 100.0, "image_height": 600, "image_width": 800}
        pose = {"wxyz": [1.0, 0.0, 0.0, 0.0], "position": [0.0, 0.0, 5.0]}
        aim = {"look_at": [1.0, 0.0, 0.0], "up_direction": [0.0, 0.0, 1.0]}
        message = {"type": "ViewerCameraMessage", **lens, **pose, **aim}
        self._socket.send(msgspec.msgpack.encode(message))

    def set(self, label: str, value: Any) -> None:
        """Use a control of the panel."""
        (uuid,) = (uuid for uuid, props in self._props.items() if props.get("label") == label)
        message = {"type": "GuiUpdateMessage", "uuid": uuid, "updates": {"value": value}}
        self._socket.send(msgspec.msgpack.encode(message))

    def _heed(self, message: dict[str, Any]) -> None:
        name = message.get("name")
        if name is not None:
            thing = self.things.setdefault(name, {})
            thing.update(message.get("props") or message.get("updates") or {})
            thing.update({k: message[k] for k in ("position", "wxyz", "visible") if k in message})
        elif "uuid" in message:
            props = self._props.setdefault(message["uuid"], {})
            props.update(message.get("props") or message.get("updates") or {})
        elif message["type"].startswith("SetCamera") and not message["initial"]:
            self.camera.update({k: message[k] for k in ("position", "look_at") if k in message})


def _messages(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the messages of a packet, arrays in their places."""
    end = 16 + int.from_bytes(data[8:16], "little")
    content = msgspec.msgpack.decode(zstandard.decompress(data[16:end]))
    arrays = []
    for length in content["binaryBufferLengths"]:
        begin = end + -end % 8
        end = begin + length
        arrays.append(data[begin:end])
    for message in content["messages"]:
        for part in (message.get("props"), message.get("updates")):
            for name, value in (part or {}).items():
                if isinstance(value, dict) and "__binary_index" in value:
                    array = np.frombuffer(arrays[value["__binary_index"]], value["dtype"])
                    part[name] = array.reshape(-1, 3)
        yield message
