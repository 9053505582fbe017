"""What an endpoint's node is called while its name is not known yet."""

import pytest

pytest.importorskip("rclpy")

from rclpy.topic_endpoint_info import TopicEndpointInfo

from embodied_rl.nodes.connections import _name


def endpoint(name, process, entity):
    return TopicEndpointInfo(
        node_name=name, node_namespace="/left/", endpoint_gid=[process] * 12 + [entity] * 12
    )


def test_endpoints_without_a_name_are_told_apart_by_their_process():
    unknown = "_NODE_NAME_UNKNOWN_"
    assert _name(endpoint("gate", 1, 1)) == "left/gate"
    assert _name(endpoint(unknown, 1, 1)) == _name(endpoint(unknown, 1, 2))
    assert _name(endpoint(unknown, 1, 1)) != _name(endpoint(unknown, 2, 1))
    assert "UNKNOWN" not in _name(endpoint(unknown, 1, 1))
