# SPDX-License-Identifier: Apache-2.0
"""Lenses over real DDS: what the node makes of a CameraInfo, and what it says of its own images."""

from __future__ import annotations

import numpy as np
import pytest
from clouds import colours
from lenses import HEIGHT, LENSES, RAYS, WIDTH, K, P, lens_info, picture_of
from robot import image_message, stamp
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tolerant import TOLERANT

from ttt3r_ros.camera.camera_info import CameraModel
from ttt3r_ros.tracking.tracker import Tracker


def spot_near(grey, place):
    """The centre of the spot within a few pixels of a place."""
    row, column = np.mgrid[: grey.shape[0], : grey.shape[1]]
    near = np.hypot(column - place[0], row - place[1]) < 7
    weight = np.where(near, grey.astype(float) - 20, 0).clip(min=0)
    assert weight.max() > 100
    return np.array([(weight * column).sum(), (weight * row).sum()]) / weight.sum()


@pytest.fixture
def infos(robot):
    return robot.client.create_publisher(CameraInfo, "camera_info", 1)


def know(robot, infos, message):
    """Let the node have heard of a camera."""
    robot.wait_until(lambda: infos.get_subscription_count() > 0)
    infos.publish(message)
    robot.wait_until(lambda: robot.node._inputs.camera._values != ())


@pytest.mark.parametrize(
    ("topic", "lens"), [*(("image", name) for name in LENSES), ("image_rect", "plumb_bob")]
)
def test_a_ray_is_where_the_depths_camera_info_puts_it(robot, infos, lens, topic):
    lens = LENSES[lens]
    robot.images = robot.client.create_publisher(Image, topic, 10)
    robot.start(cli_args=["-r", f"image:={topic}"], confidence__min=1.0, **TOLERANT)
    depth = robot.listen_to_node(Image, "depth/image_rect")
    cameras = robot.listen_to_node(CameraInfo, "depth/camera_info")
    points = robot.listen_to_node(PointCloud2, "points")
    know(robot, infos, lens_info(*lens))
    raw = picture_of(RAYS, *lens, K)
    rectified = picture_of(RAYS, *LENSES["none"], P)
    robot.send(at_s=1.0, rgb=raw if topic == "image" else rectified)
    camera, image, cloud = cameras.wait(), depth.wait(), points.wait()
    for size in (image, cloud):
        assert (size.width, size.height) == (camera.width, camera.height)
    assert camera.width / camera.height > 1.1 * WIDTH / HEIGHT  # it was cropped
    assert not any(camera.d)
    grey = colours(cloud)[:, 0].reshape(cloud.height, cloud.width)
    for ray in RAYS:
        expected = (np.reshape(camera.k, (3, 3)) @ ray)[:2]
        np.testing.assert_allclose(spot_near(grey, expected), expected, atol=0.2)


def test_the_first_image_waits_for_the_camera_info_that_comes_after_it(robot, infos):
    robot.start(**TOLERANT)
    cameras = robot.listen_to_node(CameraInfo, "depth/camera_info")
    robot.wait_until(lambda: infos.get_subscription_count() > 0)
    robot.wait_until(lambda: robot.node.count_publishers("/camera_info") > 0)
    robot.images.publish(image_message(1.0, picture_of(RAYS, *LENSES["plumb_bob"], K)))
    robot.wait_until(lambda: robot.node._worker._activation.is_camera_awaited)
    infos.publish(lens_info(*LENSES["plumb_bob"]))
    camera = cameras.wait(lambda message: message.header.stamp == stamp(1.0))
    np.testing.assert_allclose(camera.k[0], P[0, 0])  # the picture is not scaled


def test_a_camera_info_that_never_comes_holds_nothing_up(robot, infos, capfd):
    robot.start(**TOLERANT)
    robot.wait_until(lambda: robot.node.count_publishers("/camera_info") > 0)
    for i in range(2):
        assert robot.send(at_s=1 + i / 10).processed == i + 1
    error = capfd.readouterr().err
    assert error.count("/camera_info: published, but nothing came in 1 s") == 1


def test_what_the_lens_does_not_show_is_unknown_and_stays_out_of_the_map(robot, infos):
    robot.start(confidence__min=1.0, **TOLERANT)
    depth = robot.listen_to_node(Image, "depth/image_rect")
    points = robot.listen_to_node(PointCloud2, "points")
    far = np.array([[66.0, 0, 64], [0, 66, 36], [0, 0, 1]])  # the raw picture is smaller
    know(robot, infos, lens_info(*LENSES["plumb_bob"], p=far))
    rgb = picture_of(RAYS, *LENSES["plumb_bob"], K)
    few = robot.send(at_s=1.0, rgb=rgb).map_points
    image, cloud = depth.wait(), points.wait()
    shape = image.height, image.width
    for z in (
        np.frombuffer(image.data, np.float32).reshape(shape),
        np.frombuffer(cloud.data, np.float32).reshape(*shape, -1)[..., 2],
    ):
        row, column = np.argwhere(np.isfinite(z)).T
        # At the raw picture's border a ray is less than 1 from the axis.
        assert len(row) and np.hypot(row - shape[0] / 2, column - shape[1] / 2).max() < 66 + 2
    assert 0 < few <= np.isfinite(z).sum() < z.size


def test_masks_are_of_the_raw_image(robot, infos, monkeypatch):
    robot.start(process_all_images=True, **TOLERANT)
    know(robot, infos, lens_info(*LENSES["plumb_bob"]))
    masks = robot.client.create_publisher(Image, "mask", 1)
    robot.wait_until(lambda: masks.get_subscription_count() > 0)
    seen = []
    step = Tracker.step
    monkeypatch.setattr(Tracker, "step", lambda self, f: (seen.append(f.mask), step(self, f))[1])
    raw = picture_of(RAYS[:1], *LENSES["plumb_bob"], K)
    grey = np.where(raw[..., 0] > 100, 255, 0).astype(np.uint8)
    message = image_message(0.5, encoding="mono8", height=HEIGHT, width=WIDTH, step=WIDTH)
    message.data = grey.tobytes()
    masks.publish(message)
    robot.wait_until(lambda: robot.node._inputs.masks._masks)
    robot.send(at_s=1.0, rgb=raw)
    (mask,) = seen
    place = (P @ RAYS[0])[:2].round().astype(int)
    masked = np.argwhere(mask)[:, ::-1]
    near = np.hypot(*(masked - place).T) < 6
    assert near.any()
    np.testing.assert_allclose(masked[near].mean(axis=0), (P @ RAYS[0])[:2], atol=0.5)
    assert not mask[30:40, 60:70].any() and mask.mean() < 0.2


def test_a_lens_that_is_not_understood_is_told_once_and_images_are_used_as_they_are(
    robot, infos, capfd, monkeypatch
):
    handled = []
    update = CameraModel.update
    monkeypatch.setattr(
        CameraModel, "update", lambda self, info: (update(self, info), handled.append(info))
    )
    robot.start(confidence__min=1.0, **TOLERANT)
    points = robot.listen_to_node(PointCloud2, "points")
    cameras = robot.listen_to_node(CameraInfo, "depth/camera_info")
    for i in range(2):
        know(robot, infos, lens_info("omnidirectional", [0.1] * 4))
        robot.wait_until(lambda i=i: len(handled) == i + 1)
    raw = picture_of(RAYS, *LENSES["none"], K)
    assert robot.send(at_s=1.0, rgb=raw).processed == 1
    cloud, camera = points.wait(), cameras.wait()
    grey = colours(cloud)[:, 0].reshape(cloud.height, cloud.width)
    expected = (np.reshape(camera.k, (3, 3)) @ RAYS[0])[:2]
    np.testing.assert_allclose(spot_near(grey, expected), expected, atol=0.2)
    assert capfd.readouterr().err.count("distortion_model: 'omnidirectional' is not one of") == 1
