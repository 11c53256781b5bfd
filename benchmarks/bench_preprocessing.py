# SPDX-License-Identifier: Apache-2.0
"""Time and accuracy of the ways to bring a camera's image to the network's size.

    python benchmarks/bench_preprocessing.py

Accuracy is the difference to the exact path, in grey levels of 0 to 255, on a procedural picture
with detail at every scale. OpenCV's filters are there for comparison; the package does not use
them.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch

from ttt3r_ros.camera.preprocessing import (
    METHODS,
    RgbImage,
    crop_transform,
    resize_and_crop,
    to_network_input,
)

SIZES = (
    (640, 480, 512),
    (1280, 720, 512),
    (1920, 1080, 512),
    (640, 480, 224),
    (640, 480, 128),
    (320, 240, 512),
)
OPENCV = ("INTER_LINEAR", "INTER_CUBIC", "INTER_AREA", "INTER_LANCZOS4")


def detailed_picture(width: int, height: int) -> RgbImage:
    """Return noise at every scale with sharp-edged boxes over it, uint8 [height, width, 3]."""
    random = np.random.RandomState(0)
    image = np.full((height, width, 3), 128.0, np.float32)
    for cell in (1, 2, 4, 8, 16, 32, 64):
        noise = random.standard_normal((height // cell + 2, width // cell + 2, 3))
        large = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        image += 12 * cell**0.7 * large.astype(np.float32)
    for _ in range(30):
        left, top = random.randint(width), random.randint(height)
        box = image[top : top + random.randint(10, 200), left : left + random.randint(10, 200)]
        box[:] = random.randint(0, 255, 3)
    return image.clip(0, 255).astype(np.uint8)


def through_us(rgb: RgbImage, image_size: int, method: str) -> RgbImage:
    """Return the network's image."""
    return resize_and_crop(rgb, image_size, method=method)[0]


def through_opencv(rgb: RgbImage, image_size: int, filter_name: str) -> RgbImage:
    """Return the network's image with one of OpenCV's filters in place of ours."""
    plan = crop_transform(rgb.shape[1], rgb.shape[0], image_size)
    size = (plan.scaled_width, plan.scaled_height)
    scaled = np.asarray(cv2.resize(rgb, size, interpolation=getattr(cv2, filter_name)), np.uint8)
    return scaled[plan.top : plan.top + plan.height, plan.left : plan.left + plan.width]


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the median time of `work` in milliseconds, the first run left out."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Print one table per pair of sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of torch and OpenCV")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    print(
        f"{platform.machine()}, {arguments.threads} thread(s), torch {torch.__version__}, "
        f"OpenCV {cv2.__version__}"
    )
    for width, height, image_size in SIZES:
        compare(detailed_picture(width, height), image_size, arguments.repeats)


def compare(rgb: RgbImage, image_size: int, repeats: int) -> None:
    """Print a line per way to bring one image to one size."""
    exact, plan = resize_and_crop(rgb, image_size)
    sizes = f"{plan.source_width}x{plan.source_height} -> {plan.width}x{plan.height}"
    print(f"\n{sizes:26}{'ms':>10}{'mean':>8}{'max':>6}")
    ways: dict[str, Callable[[], RgbImage]] = {
        method: partial(through_us, rgb, image_size, method) for method in METHODS
    }
    ways.update(
        {f"OpenCV {name}": partial(through_opencv, rgb, image_size, name) for name in OPENCV}
    )
    for name, way in ways.items():
        difference = np.abs(way().astype(int) - exact)
        spent = median_ms(way, repeats)
        print(f"  {name:24}{spent:10.2f}{difference.mean():8.2f}{difference.max():6}")
    spent = median_ms(partial(to_network_input, exact), repeats)
    print(f"  {'to_network_input, CPU':24}{spent:10.2f}")


if __name__ == "__main__":
    main()
