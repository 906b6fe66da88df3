"""Node of ROS 2 over DDS, without an installation of ROS."""
