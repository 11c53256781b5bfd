# SPDX-License-Identifier: Apache-2.0
"""The pip project. With a ROS install, colcon builds the same tree from CMakeLists.txt instead."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "ttt3r_ros/__init__.py").read_text("utf-8"))


def shared(folder):
    """Return the files of a folder for the place where ROS looks for a package's shared files."""
    return (f"share/ttt3r_ros/{folder}", sorted(str(path) for path in Path(folder).glob("*.*")))


# ROS 2 Kilted for rclpy without a ROS install; there are no wheels for other machines.
ROS_WHEELS = [
    f"{name}; sys_platform == 'linux' and platform_machine == 'x86_64'"
    for name in (
        "ros-rclpy[fastrtps]>=9.1",
        "ros-builtin-interfaces",
        "ros-diagnostic-msgs",
        "ros-geometry-msgs",
        "ros-lifecycle-msgs",
        "ros-nav-msgs",
        "ros-rcl-interfaces",
        "ros-rosgraph-msgs",
        "ros-sensor-msgs",
        "ros-std-msgs",
        "ros-std-srvs",
        "ros-visualization-msgs",
        "ros-rosidl-adapter",  # these three build the messages that have no wheel
        "ros-rosidl-generator-py",
        "ros-rosidl-typesupport-fastrtps-c",
    )
]

# What benchmarks/bench_map.py compares the map with. `make` does not install it; there are wheels
# for these machines, with glibc 2.35 or newer.
PEERS = [
    f"{name}; sys_platform == 'linux' and platform_machine == 'x86_64'"
    for name in (
        "open3d-cpu>=0.20",
        "kiss-icp>=1.3",
        "libusb-package>=1.0.26",  # Open3D needs libusb and does not bring it
    )
]

setup(
    name="ttt3r_ros",
    version=VERSION[1],
    description="Dense mapping and tracking from one camera with a recurrent network, for ROS 2",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.15",
    packages=find_packages(include=["ttt3r_ros", "ttt3r_ros.*"]),
    # Said explicitly, an editable install is a plain path entry. Otherwise it is an import hook,
    # which comes after the folder of generated messages of the same name and would not be asked.
    package_dir={"": "."},
    package_data={
        "ttt3r_ros": ["assets/*", "interfaces/*/*"],
        "ttt3r_ros.evaluation.report": ["templates/*"],
    },
    data_files=[
        ("share/ttt3r_ros", ["package.xml"]),
        ("share/ttt3r_ros/interfaces/ttt3r_ros", sorted(map(str, Path("msg").glob("*.msg")))),
        shared("config"),
        shared("launch"),
    ],
    install_requires=[
        "torch>=2.6",
        "numpy>=1.22",
        "opencv-python-headless>=4.5",
        "pillow>=9",
        "safetensors>=0.4",
        "scipy>=1.8",
        "pyyaml>=5.4",
        "jinja2>=3.0",
        "matplotlib>=3.5",
        "tqdm>=4",
        "transforms3d>=0.4.2",
    ],
    extras_require={
        "ros": ROS_WHEELS,
        "recordings": ["rosbags>=0.11"],
        "evaluation": ["evo>=1.28"],
        "benchmark": PEERS,
        "view": ["viser>=1.1"],
        "dev": [
            "cyclonedds",
            "import-linter",
            "mypy",
            "pytest>=7",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "types-PyYAML",
        ],
    },
    entry_points={
        "console_scripts": [
            "ttt3r = ttt3r_ros.cli:main",
            "ttt3r_node = ttt3r_ros.ros.node:main",
        ]
    },
)
