"""The text of a heartbeat is read back as it was written, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_rl.core.errors import MessageError
from embodied_rl.core.heartbeat import LONGEST, Heartbeat, new_session

WORDS = st.lists(st.text("abcdefghij'%:.", min_size=1, max_size=8), max_size=6).map(" ".join)


@given(st.sampled_from(["", "0a1b2c3d", new_session()]), st.integers(0, 2**63 - 1), WORDS)
def test_what_was_written_is_read(session, chunk_ns, refusal):
    beat = Heartbeat(session, chunk_ns, refusal)
    assert Heartbeat.parse(beat.text()) == beat


@pytest.mark.parametrize(
    "text", ["", "map", "-5", "XYZ 5", "9" * 20, "9" * 5000, "a" * 17 + " 5", "abc"]
)
def test_other_texts_are_refused_in_one_short_line(text):
    with pytest.raises(MessageError, match="policy/heartbeat: frame_id") as caught:
        Heartbeat.parse(text)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_a_long_reason_is_cut_and_still_read():
    beat = Heartbeat("ab", 7, "word " * 200)
    again = Heartbeat.parse(beat.text())
    assert (again.session, again.chunk_ns) == ("ab", 7)
    assert len(beat.text()) <= LONGEST and again.refusal.startswith("word word")


def test_sessions_differ():
    assert len({new_session() for _ in range(100)}) == 100
