# SPDX-License-Identifier: Apache-2.0
"""The page over its real HTTP and web socket; how it looks is looked at by people."""

from __future__ import annotations

import urllib.request

import cv2
import numpy as np
import pytest
import viser
from browser import Browser

from ttt3r_ros.geometry import Intrinsics, optical_extrinsics
from ttt3r_ros.types import ViewError
from ttt3r_ros.viewer.page import Page


def cloud(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points whose x, and whose red, is their number."""
    numbers = np.arange(count)
    points = np.stack([numbers, 0 * numbers, numbers % 10], axis=1).astype(np.float32)
    return points, np.stack([numbers % 256, 0 * numbers, 0 * numbers], axis=1).astype(np.uint8)


def picture(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def shows(browser: Browser, count: int) -> bool:
    colours = browser.things.get("/map", {}).get("colors", ())
    return len(colours) == count and browser.things["/map"]["visible"]


def test_a_browser_gets_the_page_by_http(page):
    host, port = page.address
    with urllib.request.urlopen(f"http://{host}:{port}/", timeout=30) as answer:
        assert answer.status == 200
        assert b"<html" in answer.read().lower()


def test_only_this_machine_reaches_the_page_unless_asked(page):
    assert page.address[0] == "127.0.0.1"


def test_no_browser_can_have_the_page_shared_over_the_internet(page, monkeypatch):
    tunnels = []
    monkeypatch.setattr(viser._viser, "ViserTunnel", lambda *given: tunnels.append(given))
    assert page._server.request_share_url() is None
    assert tunnels == []


def test_points_come_as_floats_with_their_colours(page, browser):
    points, colours = cloud(50)
    page.show_cloud(points, colours)
    browser.wait(lambda b: shows(b, 50))
    np.testing.assert_array_equal(browser.things["/map"]["points"], points)
    np.testing.assert_array_equal(browser.things["/map"]["colors"], colours)
    assert browser.things["/map"]["points"].dtype == np.float32


def test_a_large_map_is_thinned_evenly_and_keeps_its_colours(page, browser):
    page.show_cloud(*cloud(1000))
    browser.wait(lambda b: shows(b, 100))
    map_ = browser.things["/map"]
    np.testing.assert_array_equal(map_["points"][:, 0], np.arange(0, 1000, 10))
    np.testing.assert_array_equal(map_["colors"][:, 0], np.arange(0, 1000, 10) % 256)


def test_points_that_are_not_finite_are_left_out(page, browser):
    points, colours = cloud(3)
    points[1, 2] = np.nan
    page.show_cloud(points, colours)
    browser.wait(lambda b: shows(b, 2))
    assert browser.things["/map"]["points"][:, 0].tolist() == [0, 2]


def test_who_comes_later_sees_what_there_is(page):
    page.show_cloud(*cloud(40))
    page.show_cloud(*cloud(60))
    late = Browser(page)
    late.wait(lambda b: shows(b, 60))
    late.close()


def test_a_browser_begins_with_a_view_of_the_whole_map(page, browser):
    page.show_cloud(*cloud(99))
    browser.tell_camera()
    browser.wait(lambda b: {"position", "look_at"} <= b.camera.keys())
    assert browser.camera["look_at"] == pytest.approx([49, 0, 4.5], abs=1)
    assert browser.camera["position"][2] > 10


def test_the_camera_stands_where_it_is_and_sees_as_much_as_its_lens(page, browser):
    T_map_camera = optical_extrinsics((1.0, 2.0, 3.0, 0.0, 0.0, 0.0))
    page.show_camera(T_map_camera, Intrinsics(100.0, 100.0, 160.0, 50.0, 320, 100))
    browser.wait(lambda b: b.things.get("/camera", {}).get("aspect") == pytest.approx(3.2))
    camera = browser.things["/camera"]
    assert camera["position"] == pytest.approx([1.0, 2.0, 3.0])
    assert camera["wxyz"] == pytest.approx([0.5, -0.5, 0.5, -0.5])  # optical axes, looks along +x
    assert camera["fov"] == pytest.approx(2 * np.arctan(0.5))
    browser.wait(lambda b: b.things["/camera"]["visible"])


def test_a_path_is_a_line_through_all_its_positions(page, browser):
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 2, 0]])
    page.show_path(positions)
    browser.wait(lambda b: len(b.things.get("/path", {}).get("points", ())) == 4)
    ends = browser.things["/path"]["points"].reshape(-1, 2, 3)
    assert {tuple(map(tuple, sorted(end.tolist()))) for end in ends} == {
        ((0, 0, 0), (1, 0, 0)),
        ((1, 0, 0), (1, 2, 0)),
    }


def test_a_long_path_is_thinned_and_ends_where_the_camera_is(page, browser):
    page.show_path(np.arange(30_000)[:, None].repeat(3, axis=1))
    browser.wait(lambda b: len(b.things.get("/path", {}).get("points", ())) > 0)
    corners = browser.things["/path"]["points"]
    assert len(corners) <= 2 * 2000
    assert corners.max() == 29_999


def test_pictures_come_as_jpeg_large_enough_to_see(page, browser):
    rgb = np.full((60, 80, 3), (200, 40, 90), np.uint8)
    page.show_image(rgb)
    browser.wait(lambda b: b.panel.get("Image", {}).get("visible"))
    shown = picture(browser.panel["Image"]["_data"])
    assert shown.shape == (240, 320, 3)
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), (200, 40, 90), atol=4)
    browser.wait(lambda b: b.things["/camera"].get("_image_data"))
    assert picture(browser.things["/camera"]["_image_data"]).shape == rgb.shape


def test_near_depth_is_red_far_depth_is_blue_and_unknown_is_dark(page, browser):
    depth_m = np.repeat(np.float32([1.0, 5.0, np.nan]), 40)[None].repeat(90, axis=0)
    page.show_depth(depth_m)
    name = "Depth, 1 m (red) to 5.5 m"
    browser.wait(lambda b: b.panel.get(name, {}).get("visible"))
    depth = browser.panel[name]
    near, far, unknown = np.array_split(picture(depth["_data"]).astype(int), 3, axis=1)
    middle = [part[:, 30:90].mean(axis=(0, 1)) for part in (near, far, unknown)]
    assert middle[0][0] > 2 * middle[0][2]
    assert middle[1][2] > 2 * middle[1][0]
    assert max(middle[2]) < 60


def test_text_is_shown_as_it_is_written(page, browser):
    page.show_text({"Message": "confidence 1.2 < 1.5 & {less}"})
    browser.wait(lambda b: "Message" in b.text)
    assert "confidence 1.2 &lt; 1.5 &amp; {less}" in browser.text


def test_clearing_hides_everything_but_the_text(page, browser):
    page.show_cloud(*cloud(9))
    page.show_camera(np.eye(4))
    page.show_path(np.zeros((5, 3)))
    page.show_image(np.zeros((3, 4, 3), np.uint8))
    page.show_text({"Node": "still there"})
    browser.wait(lambda b: "still there" in b.text)
    page.clear()
    browser.wait(lambda b: not b.panel["Image"]["visible"])
    assert not browser.things["/map"]["visible"]
    assert not browser.things["/camera"]["visible"]
    assert len(browser.things["/path"]["points"]) == 0
    assert "still there" in browser.text


def test_what_is_higher_can_be_hidden(page, browser):
    page.show_cloud(*cloud(100))  # z from 0 to 9
    browser.wait(lambda b: shows(b, 100))
    browser.tell_camera()
    browser.set("Height [%]", 50)
    browser.wait(lambda b: shows(b, 50))
    assert browser.things["/map"]["points"][:, 2].max() == 4
    page.show_cloud(*cloud(90))  # as it grows
    browser.wait(lambda b: shows(b, 45))


def test_sizes_can_be_chosen(page, browser):
    browser.tell_camera()
    browser.wait(lambda b: "Points [cm]" in b.panel and "Camera [m]" in b.panel)
    browser.set("Points [cm]", 10.0)
    browser.wait(lambda b: b.things["/map"]["point_size"] == pytest.approx(0.1))
    before = browser.things["/camera"]["scale"]
    browser.set("Camera [m]", 3.0)  # from 0.3
    browser.wait(lambda b: b.things["/camera"]["scale"] == pytest.approx(10 * before))


def test_the_view_moves_with_the_camera_if_it_is_to_follow(page, browser):
    browser.tell_camera()  # from 5 m above
    browser.wait(lambda b: "Follow camera" in b.panel)
    page.show_camera(np.eye(4))
    browser.set("Follow camera", True)
    moved = np.eye(4)

    def is_followed(b: Browser) -> bool:
        moved[0, 3] += 1.0
        page.show_camera(moved)
        return "position" in b.camera

    browser.wait(is_followed)
    x, y, z = browser.camera["position"]
    assert x > 0
    assert (y, z) == pytest.approx((0, 5))


def test_a_port_that_is_taken_is_named(page):
    host, port = page.address
    with pytest.raises(OSError, match=f"--port.*{host}:{port}"):
        Page(host, port, max_points=1)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70_000)])
def test_an_address_where_nobody_can_listen_is_named(host, port):
    with pytest.raises(OSError, match=f"{host}:{port}"):
        Page(host, port, max_points=1)


def test_a_limit_below_one_point_is_refused():
    with pytest.raises(ViewError, match="max-points: must be at least 1, got 0"):
        Page("127.0.0.1", 0, max_points=0)
