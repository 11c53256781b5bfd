# SPDX-License-Identifier: Apache-2.0
"""Between the executor's thread and the worker's: requests in order, and of images the newest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Image = TypeVar("Image")
Request = Callable[[], None]


class Mailbox(Generic[Image]):
    """A queue of images and requests for one worker thread.

    Requests come before images that wait, so they take effect before the next image. While the
    mailbox is shut images wait in it, but requests are still handed out.
    """

    def __init__(self, capacity: int) -> None:
        """Make an empty mailbox that is shut.

        Args:
            capacity: images that may wait; a further one replaces the oldest.
        """
        self._changed = threading.Condition()
        self._images: deque[Image] = deque(maxlen=capacity)
        self._requests: deque[Request] = deque()
        self._open = False
        self._closed = False

    def put(self, image: Image) -> bool:
        """Leave an image; return whether it has replaced an older one."""
        with self._changed:
            replaces = len(self._images) == self._images.maxlen
            self._images.append(image)
            self._changed.notify()
        return replaces

    def request(self, request: Request) -> bool:
        """Leave something for the worker to call before its next image.

        Returns:
            Whether it will: not once the mailbox was closed.
        """
        with self._changed:
            if not self._closed:
                self._requests.append(request)
                self._changed.notify()
            return not self._closed

    def open(self) -> None:
        """Hand out images from now on."""
        with self._changed:
            self._open = True
            self._changed.notify()

    def shut(self) -> int:
        """Hand out no more images and drop those that wait; return their number."""
        with self._changed:
            self._open = False
            dropped = len(self._images)
            self._images.clear()
        return dropped

    def drop(self, is_dropped: Callable[[Image], bool]) -> int:
        """Drop those of the waiting images; return their number."""
        with self._changed:
            kept = [image for image in self._images if not is_dropped(image)]
            dropped = len(self._images) - len(kept)
            self._images = deque(kept, self._images.maxlen)
        return dropped

    def close(self) -> None:
        """End the worker: after the requests that wait, `take` returns None."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self) -> Image | Request | None:
        """Wait for the next request or image; None when the mailbox was closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._requests or (self._open and self._images)
            )
            if self._requests:
                return self._requests.popleft()
            return None if self._closed else self._images.popleft()
