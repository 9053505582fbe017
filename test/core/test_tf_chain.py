"""Poses over several transforms, against scipy's rotations and interpolation."""

from __future__ import annotations

from types import SimpleNamespace as Msg

import numpy as np
import pytest
import yaml
from core_cases import MS, robot_data
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from embodied_rl.core.decode import StreamDecoder, decode
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import MessageError, NotForThisStream

BASE_MS = 5000
TF = {"type": "tf2_msgs/msg/TFMessage", "topic": "tf", "child_frame": "tool", "rate_hz": 50,
      "max_age_s": 0.1}  # fmt: skip


def decoder(field="position", frames=None, **keys) -> StreamDecoder:
    data = robot_data()
    data["streams"]["it"] = {**TF, "field": field, **keys}
    if frames:
        data["frames"] = frames
    return StreamDecoder(Embodiment.parse(yaml.safe_dump(data), "own.yaml").streams["it"])


def matrix(shift, vector):
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = Rotation.from_rotvec(vector).as_matrix(), shift
    return found


def stamped(parent, child, ms, shift=(0, 0, 0), vector=(0, 0, 0), turn=None):
    turn = Rotation.from_rotvec(vector).as_quat() if turn is None else turn
    ns = round((BASE_MS + ms) * MS)
    return Msg(
        header=Msg(stamp=Msg(sec=ns // 10**9, nanosec=ns % 10**9), frame_id=parent),
        child_frame_id=child,
        transform=Msg(
            translation=Msg(**dict(zip("xyz", map(float, shift), strict=True))),
            rotation=Msg(**dict(zip("xyzw", map(float, turn), strict=True))),
        ),
    )


def message(*transforms):
    return Msg(transforms=list(transforms))


def at(ms):
    return (BASE_MS + ms) * MS


numbers = st.tuples(*[st.floats(-1.5, 1.5)] * 3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6), st.data())
def test_chains_up_and_down_a_tree_are_products_of_matrices(edges, data):
    """Some transforms are fixed, some move; the stream's frame may be anywhere in the tree."""
    # tool - n0 - n1 - ... - root, and base below one of the nodes as well
    names = ["tool", *[f"n{i}" for i in range(len(edges) - 2)], "root"]
    joint = data.draw(st.sampled_from(names[1:]))
    links = [(names[i + 1], names[i], *edges[i]) for i in range(len(names) - 1)]
    links.append((joint, "base", *edges[-1]))
    fixed = data.draw(st.sets(st.integers(0, len(links) - 1), max_size=len(links) - 1))
    if not {0, len(links) - 1} - fixed:  # a part of the chain must move
        fixed -= {0}
    whole = np.eye(4)
    for _, _, shift, vector in links[: names.index(joint)]:
        whole = matrix(shift, vector) @ whole
    whole = np.linalg.inv(matrix(*edges[-1])) @ whole
    order = data.draw(st.permutations(range(len(links))))
    moving = [stamped(p, c, 20, s, v) for p, c, s, v in (links[i] for i in order if i not in fixed)]
    results = []
    for each in (decoder(), decoder("orientation")):
        for i in fixed:
            each.latch(message(stamped(links[i][0], links[i][1], -BASE_MS, *links[i][2:])))
        sample = each(message(*moving))
        assert sample.stamp_ns == at(20)
        results.append(sample.value)
    assert results[0] == pytest.approx(whole[:3, 3], abs=1e-9)
    gap = Rotation.from_quat(results[1]).inv() * Rotation.from_matrix(whole[:3, :3])
    assert gap.magnitude() < 1e-7


def feed(each, *transforms):
    """The samples that messages of one transform each make."""
    found = []
    for transform in transforms:
        try:
            found.append(each(message(transform)))
        except NotForThisStream:
            continue
    return found


@settings(max_examples=30, deadline=None)
@given(numbers, numbers, numbers, numbers, st.floats(0.05, 0.95))
def test_moving_transforms_meet_where_the_slowest_was_measured(a, b, va, vb, share):
    """A slow one and a fast one that is stamped in between: lines and slerp."""
    ms = round(20 * share)
    transforms = [
        stamped("base", "arm", 0, a, va),
        stamped("arm", "tool", ms - 30, (0.1, 0, 0)),
        stamped("arm", "tool", ms, (0.1, 0, 0)),
        stamped("base", "arm", 20, b, vb),
    ]
    places, turns = feed(decoder(), *transforms), feed(decoder("orientation"), *transforms)
    assert [sample.stamp_ns for sample in places] == [at(ms)]  # of the slower one
    turn = Slerp([0, 20], Rotation.from_rotvec([va, vb]))([ms])[0]
    shift = np.array(a) + (np.array(b) - np.array(a)) * ms / 20
    assert places[0].value == pytest.approx(shift + turn.apply([0.1, 0, 0]), abs=1e-7)
    assert (Rotation.from_quat(turns[0].value).inv() * turn).magnitude() < 1e-6


def test_each_time_is_told_once_and_none_is_guessed():
    each = decoder()
    samples = feed(
        each,
        stamped("base", "arm", 0),
        stamped("arm", "tool", 0, (1, 0, 0)),  # both are known at 0
        stamped("arm", "tool", 20, (2, 0, 0)),  # base -> arm is not known at 20
        stamped("arm", "tool", 60, (3, 0, 0)),
        stamped("base", "arm", 40, (0, 1, 0)),  # now both are known at 40
        stamped("base", "arm", 40, (0, 9, 0)),  # a repetition
        stamped("base", "other", 50),  # not in the chain
        stamped("base", "arm", 80, (0, 2, 0)),  # arm -> tool is not known at 80
        stamped("arm", "tool", 80, (4, 0, 0)),
    )
    assert [sample.stamp_ns for sample in samples] == [at(0), at(40), at(80)]
    assert [sample.value.tolist() for sample in samples] == [[1, 0, 0], [2.5, 1, 0], [4, 2, 0]]


@given(st.data())
def test_the_order_in_which_two_publishers_are_heard_makes_no_difference(data):
    """Each is heard in its own order, and both within a period of the slower one."""
    pan = [(ms + 0.0, stamped("base", "arm", ms, (ms / 10, 0, 0))) for ms in range(0, 400, 50)]
    tilt = [(ms + 0.0, stamped("arm", "tool", ms, (0, ms / 10, 0))) for ms in range(4, 400, 10)]
    results = []
    for _ in range(2):
        late_ms = [data.draw(st.floats(0, 45)) for _ in range(2)]
        heard = [(ms + late, part) for late, link in zip(late_ms, (pan, tilt)) for ms, part in link]
        samples = feed(decoder(), *[part for _, part in sorted(heard, key=lambda item: item[0])])
        assert all(sample.stamp_ns in {at(ms) for ms, _ in pan} for sample in samples)
        results.append({sample.stamp_ns: sample.value.tolist() for sample in samples})
    one, other = results
    for stamp in range(at(100), at(350), 50 * MS):
        assert one[stamp] == other[stamp]
    (last,) = {tuple(found[at(100)]) for found in results}
    assert last == pytest.approx((10.0, 10.0, 0.0))


def test_a_gap_longer_than_the_maximum_age_is_not_bridged():
    samples = feed(
        decoder(),
        stamped("base", "arm", 0),
        stamped("arm", "tool", 0),
        stamped("base", "arm", 150, (0, 1, 0)),
        stamped("arm", "tool", 70, (1, 0, 0)),  # 150 ms between its neighbours, 100 are allowed
        stamped("arm", "tool", 160, (2, 0, 0)),
    )
    assert [sample.stamp_ns for sample in samples] == [at(0), at(150)]


def test_a_clock_that_was_set_back_begins_anew():
    samples = feed(
        decoder(),
        *[stamped(*link, 60_000) for link in (("base", "arm"), ("arm", "tool"))],
        *[stamped(*link, ms) for ms in (0, 20) for link in (("base", "arm"), ("arm", "tool"))],
    )
    assert [sample.stamp_ns for sample in samples] == [at(60_000), at(0), at(20)]


def test_fixed_transforms_may_come_later_and_frames_of_the_file_count_too():
    each = decoder()
    (first,) = feed(decoder(frames={"mount": {"parent": "base", "xyz": [0, 0, 1],
                                              "rpy": [0, 0, 0]}}),
                    stamped("mount", "tool", 0, (1, 0, 0)))  # fmt: skip
    assert first.value.tolist() == [1, 0, 1]
    assert feed(each, stamped("mount", "tool", 0, (1, 0, 0))) == []
    each.latch(message(stamped("/base", "/mount", 7000, (0, 0, 2))))
    (second,) = feed(each, stamped("mount", "tool", 20, (1, 0, 0)))
    assert second.value.tolist() == [1, 0, 2]


def test_frames_that_nothing_connects_are_a_fault_after_a_second():
    each = decoder()
    for ms in (0, 500, 980):
        with pytest.raises(NotForThisStream, match="what connects 'odom' with 'base'"):
            each(message(stamped("odom", "tool", ms)))
    with pytest.raises(MessageError, match="connect 'tool' with 'base', saw 'odom' without a par"):
        each(message(stamped("odom", "tool", 1001)))
    each(message(stamped("base", "odom", 1020), stamped("odom", "tool", 1020)))


@pytest.mark.parametrize(
    "transforms",
    [
        [stamped("arm", "tool", 0), stamped("tool", "arm", 0)],
        [stamped("tool", "tool", 0)],
    ],
)
def test_frames_that_go_round_end(transforms):
    with pytest.raises(NotForThisStream):
        decoder()(message(*transforms))


def test_what_is_not_sound_is_refused():
    bad = stamped("arm", "tool", 0, turn=(0, 0, 0, 0))
    with pytest.raises(MessageError, match="^tf: tool: expected a unit quaternion, saw"):
        decoder()(message(stamped("base", "arm", 0), bad))
    with pytest.raises(MessageError, match="expected a finite number, saw nan"):
        decoder()(message(stamped("base", "arm", 0), stamped("arm", "tool", 0, (np.nan, 0, 0))))
    each = decoder()
    each.latch(message(stamped("base", "tool", 0)))
    assert feed(each, stamped("base", "arm", 0)) == []  # nothing of it moves


def test_one_transform_alone_is_read_as_it_is():
    one = message(stamped("base", "tool", 3, (0.1, 0.2, 0.3), (0.3, -0.1, 2.0)))
    for field in ("position", "orientation", "yaw"):
        each = decoder(field)
        alone, chained = decode(each.stream, one), each(one)
        assert alone.stamp_ns == chained.stamp_ns
        assert alone.value.tobytes() == chained.value.tobytes()
