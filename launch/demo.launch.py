# SPDX-License-Identifier: Apache-2.0
"""Maps a simulated room, with everything in RViz: ros2 launch ttt3r_ros demo.launch.py."""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

NODE = PathJoinSubstitution([FindPackageShare("ttt3r_ros"), "launch", "ttt3r.launch.py"])
# Defaults and what they are. The room is that of `ttt3r demo`.
ARGUMENTS = {
    "rviz": ("true", "false: without RViz"),
    "seed": ("1100026", "of the room and the path"),
    "frames": ("600", "images, 10 a second; once around the room takes 600"),
}


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the node as in ttt3r.launch.py, and the camera."""
    # It waits until the node subscribes to its images.
    camera = Node(
        package="ttt3r_ros",
        executable="ttt3r",
        exec_name="camera",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        arguments=[
            *("simulate", "--publish", "--loop", "60"),
            *("--seed", LaunchConfiguration("seed")),
            *("--frames", LaunchConfiguration("frames")),
        ],
        remappings=[(name, LaunchConfiguration(name)) for name in ("image", "camera_info")],
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(NODE)),
            camera,
        ]
    )
