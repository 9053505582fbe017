"""What an endpoint's node is called while its name is not known yet."""

import pytest

pytest.importorskip("rclpy")

from rclpy.topic_endpoint_info import TopicEndpointInfo

from embodied_rl.nodes import connections
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


def test_a_silent_publisher_of_another_user_is_explained(tmp_path, monkeypatch):
    (tmp_path / "fastrtps_0123456789abcdef_el").touch()
    assert connections.silence_hint(1, tmp_path) == ""
    monkeypatch.setattr(connections.os, "getuid", lambda: 4242)
    assert "run both as the same user" in connections.silence_hint(1, tmp_path)
    assert connections.silence_hint(0, tmp_path) == ""
