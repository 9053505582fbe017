"""The plan as a record, the drive under it, and its picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from embodied_rl.core.errors import UserError
from embodied_rl.core.plan import (
    AVOIDED,
    DONE,
    MISSED,
    PENDING,
    Disc,
    ExecutedPath,
    PlannedItem,
    PlanRecord,
)

PLAN = PlanRecord(
    task="case",
    formula="F[1,8] A and F[0.5,8] B and G[0,16] not O",
    start_ns=3_000_000_000,
    dt_s=0.5,
    steps=32,
    step=12,
    value=-0.25,
    replanned=1,
    violated=False,
    follow_error_m=float("nan"),
    regions={
        "A": Disc((2.0, 0.0), 0.5),
        "B": Disc((0.0, 2.0), 0.5),
        "O": Disc((-1.0, -1.0), 0.7),
        "unused": Disc((3.0, 3.0), 0.2),
    },
    items=(
        PlannedItem("A", 4, 4, DONE),
        PlannedItem("B", 10, 16, PENDING),
        PlannedItem("O", 0, 32, AVOIDED),
    ),
)


def test_a_plan_crosses_a_topic_unchanged() -> None:
    text = yaml.safe_dump(PLAN.as_mapping(), sort_keys=False, default_flow_style=None)
    again = PlanRecord.from_yaml(text, "policy/plan")
    assert np.isnan(again.follow_error_m)
    assert replace(again, follow_error_m=0.0) == replace(PLAN, follow_error_m=0.0)
    assert again.stamp_ns(3) == 4_500_000_000 and not again.over
    assert [item.region for item in again.subgoals] == ["A", "B"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d.pop("dt_s"), "policy/plan: dt_s: missing"),
        (lambda d: d["items"][0].pop("first"), "policy/plan: items: expected planned items"),
        (lambda d: d["regions"]["A"].pop("radius"), "policy/plan: regions.A.radius: missing"),
    ],
)
def test_what_is_no_plan_is_refused(spoil, said) -> None:
    data = yaml.safe_load(yaml.safe_dump(PLAN.as_mapping()))
    spoil(data)
    with pytest.raises(UserError, match=said):
        PlanRecord.from_yaml(yaml.safe_dump(data), "policy/plan")


def straight(speed: float = 1.0) -> ExecutedPath:
    """Along x from the origin at 10 Hz for six seconds."""
    drive = ExecutedPath(PLAN)
    for i in range(61):
        drive.times_s.append(0.1 * i)
        drive.positions.append(np.array([speed * 0.1 * i, 0.0, 0.0]))
    return drive


def test_a_drive_knows_when_it_was_inside_a_region() -> None:
    ((begin, end),) = straight().inside("A")
    assert begin == pytest.approx(1.5, abs=0.11) and end == pytest.approx(2.5, abs=0.11)
    assert straight().inside("B") == []
    ((begin, end),) = straight(speed=1 / 3).inside("A")  # it ends there
    assert begin == pytest.approx(4.5, abs=0.11) and end == pytest.approx(6.0)
    assert straight().at(2.04) == pytest.approx([2.0, 0, 0]) and straight().at(9.0) is None


def test_only_other_times_replace_a_plan() -> None:
    drive = ExecutedPath(PLAN)
    drive.update(replace(PLAN, step=13))
    assert drive.replaced == [] and drive.plan.step == 13
    moved = replace(PLAN, items=(*PLAN.items[:1], PlannedItem("B", 20, 26, PENDING)))
    drive.update(moved)
    assert [plan.step for plan in drive.replaced] == [13] and drive.plan == moved


def pixels(path, colour: tuple[int, int, int]) -> int:
    """How many pixels of a PNG have about a colour."""
    image = pytest.importorskip("matplotlib.image").imread(path)[..., :3] * 255
    return int((np.abs(image - np.array(colour)).max(axis=-1) < 30).sum())


def test_the_picture_shows_what_there_is(tmp_path) -> None:
    picture = pytest.importorskip("embodied_rl.nodes.plan_picture")
    empty, full = tmp_path / "empty.png", tmp_path / "full.png"
    picture.draw(ExecutedPath(PLAN), empty, "no episode yet")
    drive = straight()
    drive.replaced.append(PLAN)
    drive.band = [(0.5 * i, -np.inf if i < 4 else -3.0 + 0.25 * i, 0.5) for i in range(13)]
    picture.draw(drive, full, "case, episode 0: success")
    missed = replace(PLAN, items=(PlannedItem("A", 4, 4, MISSED), *PLAN.items[1:]))
    other = tmp_path / "missed.png"
    picture.draw(ExecutedPath(missed), other, "case")
    blue, purple, orange = (0, 114, 178), (68, 1, 84), (230, 159, 0)
    assert pixels(full, blue) > pixels(empty, blue) + 100, "the band of the robustness"
    assert pixels(full, purple) > pixels(empty, purple) + 100, "the path where it is early"
    assert pixels(other, orange) > pixels(empty, orange) + 50, "a goal that was missed"
