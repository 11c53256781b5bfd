# SPDX-License-Identifier: Apache-2.0
"""Starts ttt3r_node on a camera: ros2 launch ttt3r_ros ttt3r.launch.py image:=/camera/image_raw.

Or on a bag: ros2 launch ttt3r_ros ttt3r.launch.py bag:=my_bag rviz:=true.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Topics of the node that may be given another name.
TOPICS = {
    "image": "images; with image_transport:=compressed the topic above /compressed",
    "camera_info": "the camera's intrinsics",
    "mask": "images whose pixels that are not 0 are left out of the map",
    "odometry": "the robot's own odometry, for scale_source odom",
    "initialpose": "where somebody says that the robot is in the map",
}
# Parameters that may be given as arguments, and then beat the parameter file.
PARAMETERS = {
    "checkpoint": (str, "file of weights, .safetensors or official .pth"),
    "session": (str, "folder of ~/save_session to go on from"),
    "image_transport": (str, "raw, or compressed to subscribe to <image>/compressed"),
    "use_sim_time": (bool, "true: time is /clock; with bag it is, unless said otherwise"),
}
SHARE = FindPackageShare("ttt3r_ros")
CONFIG = PathJoinSubstitution([SHARE, "config", "ttt3r.yaml"])
RVIZ_CONFIG = PathJoinSubstitution([SHARE, "config", "ttt3r.rviz"])
# Defaults and what they are.
OTHERS = {
    "config": (CONFIG, "file of parameters; those given as arguments beat it"),
    "namespace": ("", "of the node and its topics"),
    "rviz": ("false", "true: show everything in RViz"),
    "bag": ("", "rosbag2 to play, with its clock"),
    "end_with_bag": ("false", "true: all ends with the bag; else the node stays"),
}


def start(context: LaunchContext) -> list[Node]:
    """Return the node with those of the parameters that were given, and who is wanted with it."""
    values = context.launch_configurations
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in PARAMETERS.items()
        if values[name]
    }
    if values["bag"]:
        given.setdefault("use_sim_time", True)
    time = {name: value for name, value in given.items() if name == "use_sim_time"}
    node = Node(
        package="ttt3r_ros",
        executable="ttt3r_node",
        name="ttt3r_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[LaunchConfiguration("config"), *([given] if given else [])],
        remappings=[(name, LaunchConfiguration(name)) for name in TOPICS],
        on_exit=Shutdown(reason="ttt3r_node has ended"),
    )
    # It waits until the node subscribes to its images.
    player = Node(
        package="ttt3r_ros",
        executable="ttt3r",
        exec_name="player",
        output="screen",
        arguments=["play", LaunchConfiguration("bag"), "--wait", "120"],
        on_exit=after_bag,
    )
    # The topics of its displays are relative: in the node's namespace they are the node's.
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", RVIZ_CONFIG],
        parameters=[time] if time else [],
        remappings=[("image", LaunchConfiguration("image"))],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    # RViz first: where it is not installed, launch ends here, and would leave the others running.
    return [rviz, node, *([player] if values["bag"] else [])]


def after_bag(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """End everything if the bag could not be played, or if its end is to be the end of all."""
    if event.returncode or IfCondition(LaunchConfiguration("end_with_bag")).evaluate(context):
        return Shutdown(reason="the bag has ended")
    return None


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they start."""
    arguments = {
        **{name: (name, f"topic: {what}") for name, what in TOPICS.items()},
        **{name: ("", what) for name, (_, what) in PARAMETERS.items()},
        **OTHERS,
    }
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in arguments.items()
            ),
            OpaqueFunction(function=start),
        ]
    )
