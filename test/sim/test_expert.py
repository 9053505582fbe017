"""The demonstrators: they succeed, within limits, on rows alone, and carry explicit memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.core.window import Observation
from embodied_rl.sim.registry import TASKS, make_simulator, world_embodiment
from embodied_rl.sim.rollout import rollout
from embodied_rl.sim.tasks.expert import EXPERTS, make_expert


@pytest.fixture(scope="module", params=sorted(TASKS))
def sim(request):
    return make_simulator(task=request.param)


def test_every_task_has_an_expert():
    assert set(EXPERTS) == {*TASKS, "find_object"}
    with pytest.raises(UserError, match="valid: count_pushes, find_object, pick_place, rep"):
        make_expert("juggle", world_embodiment("tabletop"))


def test_succeeds_without_being_limited(sim):
    expert = make_expert(sim.task_name, sim.embodiment)
    results = [rollout(sim, expert, i, 100 + i) for i in range(8)]
    assert [result.outcome.reason for result in results] == ["success"] * 8
    assert sum(result.limited for result in results) == 0
    lengths = [result.ticks for result in results]
    assert max(lengths) < 90 and len(set(lengths)) > 3  # clock time tells nothing


def test_same_seed_gives_the_same_commands(sim):
    once, again = (
        rollout(sim, make_expert(sim.task_name, sim.embodiment), 0, 7, keep_observations=True)
        for _ in range(2)
    )
    np.testing.assert_array_equal(once.commands, again.commands)
    assert len(once.observations) == once.ticks == len(once.commands)
    assert not any(row.missing for row in once.observations)


def test_chunks_begin_with_the_single_target_and_foresee_the_way(sim):
    """Targets ahead come from imagining perfect following: near what is later commanded."""
    one, many = (make_expert(sim.task_name, sim.embodiment, chunk=n) for n in (1, 5))
    firsts, futures = [], []
    rollout(sim, one, 0, 3, on_tick=lambda _row, chunk: firsts.append(chunk.values[0]))
    rollout(sim, many, 0, 3, on_tick=lambda _row, chunk: futures.append(chunk.values[:2]))
    np.testing.assert_array_equal(firsts, [values[0] for values in futures])
    ahead = np.array([values[1] for values in futures[:-1]])
    assert np.median(np.abs(ahead - firsts[1:])[:, :6]) < 0.01
    with pytest.raises(UserError, match="chunk: expected at least 1"):
        make_expert(sim.task_name, sim.embodiment, chunk=0)


def test_memory_moves_to_another_instance():
    """Handing over in the middle of an episode changes no command."""
    sim = make_simulator(task="replace_object")
    whole = rollout(sim, make_expert("replace_object", sim.embodiment), 0, 11)

    class Relay:
        """Passes its memory to a fresh expert at every tick."""

        def __init__(self):
            self.expert = make_expert("replace_object", sim.embodiment)
            self.spec = self.expert.spec
            self.reset, self.observe = self.expert.reset, self.observe_relayed

        def observe_relayed(self, row):
            fresh = make_expert("replace_object", sim.embodiment)
            fresh.load_memory(self.expert.save_memory())
            self.expert = fresh
            fresh.observe(row)

        def act(self):
            return self.expert.act()

        def executed(self, chunk):
            self.expert.executed(chunk)

    np.testing.assert_array_equal(rollout(sim, Relay(), 0, 11).commands, whole.commands)


@pytest.mark.parametrize("blob", [b"junk", b"[]", b'{"policy": "other", "memory": {}}'])
def test_foreign_memory_is_refused(blob):
    expert = make_expert("replace_object", world_embodiment("tabletop"))
    with pytest.raises(UserError, match="memory: expected that of expert_replace_object"):
        expert.load_memory(blob)


def waits(expert) -> bool:
    """Whether the expert has arrived over the hub and counts its wait."""
    return expert.leg == "hold" and expert._memory.stayed > 0


def test_the_same_row_asks_for_two_actions():
    """Proof that memory is needed: one row over the hub, two pasts, two different commands."""
    sim = make_simulator(task="replace_object")
    experts = {}
    for seed in range(20):
        expert = make_expert("replace_object", sim.embodiment)
        rollout(sim, expert, 0, seed, on_tick=lambda _row, _chunk, e=expert: waits(e))
        experts.setdefault(sim.task.own_pad, expert)
        if len(experts) == 2:
            break
    chain = sim.embodiment.chain
    arm = chain.inverse(np.array([0.58, 0.0, 0.12]), sim.world.tool_down, sim.world.home)
    sideways = {}
    for pad, expert in experts.items():
        for tick in range(40):  # the same rows for both, until the wait has ended
            values = {
                "arm_position": arm,
                "gripper_position": np.array([0.44]),
                "tool_position": np.array([0.58, 0.0, 0.12]),
                "object_position": np.array([0.58, 0.0, 0.12]),
            }
            expert.observe(Observation(tick, values, dict.fromkeys(values, True)))
            command = expert.act().values[0]
            if not waits(expert):
                break
        sideways[pad] = chain.forward(command[:6])[0][1]
    assert sideways[0] > 0.005 and sideways[1] < -0.005  # left pad, right pad


def test_a_lost_cube_is_picked_up_again():
    """pick_place: the cube slips away in the middle; the plan starts again and succeeds."""
    sim = make_simulator(task="pick_place")
    expert = make_expert("pick_place", sim.embodiment)
    knocked = []

    def knock(_row, _chunk):
        if expert.leg == "above" and not knocked:
            knocked.append(True)
            place = int(sim.model.jnt_qposadr[sim.model.body(sim.task.object_body).jntadr[0]])
            sim.data.qpos[place : place + 7] = [0.40, 0.1, 0.02, 1, 0, 0, 0]

    result = rollout(sim, expert, 0, 2, on_tick=knock)
    assert knocked and result.outcome.success


def test_incomplete_rows_and_unfit_embodiments_are_refused():
    embodiment = world_embodiment("tabletop")
    expert = make_expert("pick_place", embodiment)
    expert.reset(EpisodeInfo(0, 0, "pick_place", "", 0))
    expert.observe(Observation(0, {}, {"arm_position": False}))
    with pytest.raises(RuntimeError, match="complete row"):
        expert.act()
    with pytest.raises(UserError, match="kinematics: missing"):
        make_expert("pick_place", dataclasses.replace(embodiment, chain=None))
    text = embodiment.text.replace("  object_position:", "  object_place:")
    with pytest.raises(UserError, match="no stream 'object_position'"):
        make_expert("pick_place", Embodiment.parse(text, "robot.yaml"))
