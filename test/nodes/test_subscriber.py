"""How many messages never came, by the numbers of their publishers."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from embodied_rl.nodes.subscriber import Subscriber  # noqa: E402


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([7, 8, 9], 0),  # one that joined late has lost nothing
        ([1, 2, 5, 6, 9], 4),
        ([1, 2, 5, 1, 2, 4], 3),  # started again
        ([10, 500, 11, 501, 12], 0),  # two publishers
        ([None, None], 0),  # a middleware that gives no numbers
    ],
)
def test_gaps_in_the_numbers_of_a_publisher_are_counted(numbers, lost):
    heard = []
    subscriber = Subscriber.__new__(Subscriber)
    subscriber._dropped = subscriber._missing = subscriber._falls = 0
    subscriber._last_number, subscriber._info, subscriber._callback = None, False, heard.append
    for number in numbers:
        subscriber._on_message("data", {"publication_sequence_number": number})
    assert subscriber.lost == lost and len(heard) == len(numbers)
