# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

from ttt3r_ros.ros.mailbox import Mailbox


def test_the_newest_image_replaces_the_oldest_that_waits():
    mailbox = Mailbox[str](2)
    mailbox.open()
    assert [mailbox.put(image) for image in "abc"] == [False, False, True]
    assert [mailbox.take(), mailbox.take()] == ["b", "c"]


def test_requests_come_before_images_and_in_order():
    mailbox, called = Mailbox[str](1), []
    mailbox.open()
    mailbox.put("a")
    mailbox.request(lambda: called.append(1))
    mailbox.request(lambda: called.append(2))
    mailbox.take()()
    mailbox.take()()
    assert called == [1, 2] and mailbox.take() == "a"


def test_a_shut_mailbox_keeps_images_but_hands_out_requests():
    mailbox = Mailbox[str](1)
    mailbox.put("a")
    mailbox.request(lambda: None)
    assert callable(mailbox.take())
    taken = []
    thread = threading.Thread(target=lambda: taken.append(mailbox.take()))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    mailbox.open()
    thread.join(10)
    assert taken == ["a"]


def test_shutting_drops_what_waits_and_counts_it():
    mailbox = Mailbox[str](5)
    mailbox.open()
    mailbox.put("a")
    mailbox.put("b")
    assert mailbox.shut() == 2
    mailbox.open()
    mailbox.put("c")
    assert mailbox.take() == "c"


def test_images_are_dropped_by_choice_and_counted():
    mailbox = Mailbox[str](3)
    mailbox.open()
    for image in "abc":
        mailbox.put(image)
    assert mailbox.drop(lambda image: image != "b") == 2
    assert mailbox.take() == "b"
    assert [mailbox.put(image) for image in "wxyz"] == [False, False, False, True]


def test_closing_ends_a_worker_that_waits():
    mailbox = Mailbox[str](1)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(mailbox.take()))
    thread.start()
    mailbox.close()
    thread.join(10)
    assert taken == [None]
