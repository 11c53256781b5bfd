# SPDX-License-Identifier: Apache-2.0
"""Starts ttt3r_node on a camera: ros2 launch ttt3r_ros ttt3r.launch.py image:=/camera/image_raw."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Parameters that may be given as arguments, and then beat the parameter file.
PARAMETERS = {
    "checkpoint": (str, "file of weights, .safetensors or official .pth"),
    "session": (str, "folder of ~/save_session to go on from"),
    "image_transport": (str, "raw, or compressed to subscribe to <image>/compressed"),
    "use_sim_time": (bool, "true while a bag plays with its clock"),
}


def start_node(context: LaunchContext) -> list[Node]:
    """Return the node with those of the parameters that were given."""
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in PARAMETERS.items()
        if LaunchConfiguration(name).perform(context)
    }
    return [
        Node(
            package="ttt3r_ros",
            executable="ttt3r_node",
            name="ttt3r_node",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[LaunchConfiguration("config"), *([given] if given else [])],
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("camera_info", LaunchConfiguration("camera_info")),
            ],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    parameter_file = PathJoinSubstitution([FindPackageShare("ttt3r_ros"), "config", "ttt3r.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="image", description="raw image topic"),
            DeclareLaunchArgument("camera_info", default_value="camera_info"),
            DeclareLaunchArgument("config", default_value=parameter_file, description="parameters"),
            DeclareLaunchArgument("namespace", default_value=""),
            *(
                DeclareLaunchArgument(name, default_value="", description=description)
                for name, (_, description) in PARAMETERS.items()
            ),
            OpaqueFunction(function=start_node),
        ]
    )
