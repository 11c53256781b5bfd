# SPDX-License-Identifier: Apache-2.0
"""Starts ttt3r_node on a camera: ros2 launch ttt3r_ros ttt3r.launch.py image:=/camera/image_raw."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Return the node with its arguments; the arguments beat the parameter file."""
    parameter_file = PathJoinSubstitution([FindPackageShare("ttt3r_ros"), "config", "ttt3r.yaml"])
    arguments = [
        DeclareLaunchArgument("image", default_value="image", description="raw image topic"),
        DeclareLaunchArgument("camera_info", default_value="camera_info"),
        DeclareLaunchArgument(
            "image_transport",
            default_value="raw",
            choices=["raw", "compressed"],
            description="compressed: subscribe to <image>/compressed",
        ),
        DeclareLaunchArgument("checkpoint", default_value="", description="file of weights"),
        DeclareLaunchArgument("config", default_value=parameter_file, description="parameter file"),
        DeclareLaunchArgument("namespace", default_value=""),
        DeclareLaunchArgument("use_sim_time", default_value="false"),
    ]
    node = Node(
        package="ttt3r_ros",
        executable="ttt3r_node",
        name="ttt3r_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            LaunchConfiguration("config"),
            {
                "checkpoint": LaunchConfiguration("checkpoint"),
                "image_transport": LaunchConfiguration("image_transport"),
                "use_sim_time": LaunchConfiguration("use_sim_time"),
            },
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("camera_info", LaunchConfiguration("camera_info")),
        ],
    )
    return LaunchDescription([*arguments, node])
