"""What a policy saw live equals what the bag of the same episode gives back, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock

from embodied_rl.bags.episode import read_episode
from embodied_rl.bags.read import Bag
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.policy import episode_seed
from embodied_rl.core.window import (
    Arrival,
    History,
    Observation,
    RowBuilder,
    Sample,
    Window,
    history_indices,
)
from embodied_rl.policies.registry import load_policy
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.rollout import rollout

from .conftest import EMBODIMENT

HISTORY, STRIDE = 4, 3
TASK = "replace_object"


class Witness:
    """The expert, looking through a camera as well and keeping every window it was shown."""

    def __init__(self, name: str, embodiment: Embodiment, task: str):
        self._expert = load_policy(name, embodiment, task)
        streams = {**self._expert.spec.streams, "camera_fixed": (128, 128, 3)}
        self.spec = replace(
            self._expert.spec,
            streams=streams,
            history=HISTORY,
            stride=STRIDE,
            embodiment_hash=embodiment.contract_hash(streams),
        )
        self._history = History(HISTORY, STRIDE)
        self.windows: dict[int, Window] = {}
        self.in_force: list[tuple[int, np.ndarray, int]] = []
        self.in_time: set[tuple[str, int]] = set()

    def listen(self, builder: RowBuilder) -> None:
        """Note which samples came before the rows that needed them: the others were not seen."""
        add = builder.add

        def noting(key: str, sample: Sample) -> Arrival:
            arrival = add(key, sample)
            if arrival in (Arrival.OK, Arrival.DISORDERED):
                self.in_time.add((key, sample.stamp_ns))
            return arrival

        builder.add = noting  # type: ignore[method-assign]

    def reset(self, episode) -> None:
        self._history.clear()
        self.windows.clear()
        self.in_force.clear()
        self._expert.reset(episode)

    def observe(self, observation: Observation) -> None:
        self._history.push(observation)
        self.windows[observation.stamp_ns] = self._history.window()
        self._expert.observe(observation)

    def act(self):
        return self._expert.act()

    def executed(self, chunk) -> None:
        self.in_force.append((chunk.stamp_ns, chunk.values, len(self.windows)))
        self._expert.executed(chunk)

    def save_memory(self) -> bytes:
        return self._expert.save_memory()

    def load_memory(self, blob: bytes) -> None:
        self._expert.load_memory(blob)


@pytest.fixture(params=["lockstep", "realtime"])
def recorded(request, processes, probe, host, tmp_path):
    """One recorded episode: the witness inside this process, and the folder of the bag."""
    mode, out = request.param, tmp_path / "run"
    common = {"embodiment": EMBODIMENT, "use_sim_time": True}
    processes.start("sim_node", mode=mode, task=TASK, cameras="fixed", seed=3)
    clock = probe.collect(Clock, "/clock")
    probe.until(lambda: clock, "clock")
    processes.start("command_gate_node", mode=mode, **common)
    processes.start("recorder_node", out=out, **common)
    witness = host.configure(lambda body: Witness("expert", body, TASK), mode=mode, **common)
    witness.listen(host.node._worker.loop.builder)
    host.activate()
    conductor = processes.start("episode_node", episodes=1, record=True, out=out, mode=mode)
    probe.until(lambda: conductor.poll() is not None, "end of the episode", 60)
    assert conductor.returncode == 0, processes.log("episode_node")
    return mode, witness, out / "episode_000000"


def test_windows_from_the_bag_equal_the_live_ones(recorded):
    mode, witness, folder = recorded
    with Bag.open(folder) as bag:
        episode = read_episode(bag, keys=witness.spec.streams)
    assert episode.outcome is not None
    index_of = {stamp: tick for tick, stamp in enumerate(episode.stamps_ns.tolist())}
    compared = 0
    for stamp in sorted(index_of.keys() & witness.windows.keys()):
        live = witness.windows[stamp]
        index, inside = history_indices(index_of[stamp], HISTORY, STRIDE)
        np.testing.assert_array_equal(live.inside, inside)
        ticks = episode.stamps_ns[index].tolist()
        whole = True
        for key in witness.spec.streams:
            if not all((key, tick) in witness.in_time for tick in ticks):
                whole = False  # on a busy machine a frame is left out, or comes after its row
                continue
            assert live.values[key].dtype == episode.values[key].dtype
            assert live.values[key].tobytes() == episode.values[key][index].tobytes(), (key, stamp)
            np.testing.assert_array_equal(live.valid[key], episode.valid[key][index] & inside)
        compared += whole
    if mode == "lockstep":
        assert not episode.report.findings
        assert episode.outcome.success
        assert compared >= len(episode) - 1 >= 40
        _check_against_in_process(episode, witness)
    assert compared >= 5
    _check_executed(episode, witness, 40 if mode == "lockstep" else 5)


def _check_executed(episode, witness, least: int) -> None:
    """What the policy heard of its own commands is what the bag holds as actions."""
    told = {stamp: values for stamp, values, _ in witness.in_force}
    rows = dict(zip(episode.stamps_ns.tolist(), episode.actions, strict=True))
    # What is sent at the final instant is not carried out, and may come when the bag is closed.
    both = told.keys() & rows.keys() - {int(episode.stamps_ns[-1])}
    assert len(both) >= least
    for stamp in sorted(both):
        np.testing.assert_array_equal(told[stamp][0], rows[stamp], err_msg=f"at {stamp} ns")


def _check_against_in_process(episode, witness) -> None:
    """The same seed in one process gives the same commands, step for step."""
    simulator = make_simulator("tabletop", TASK, cameras=["camera_fixed"])
    twin = Witness("expert", simulator.embodiment, TASK)
    result = rollout(simulator, twin, 0, episode_seed(3, 0))
    simulator.close()
    shift_ns = witness.in_force[0][0] - twin.in_force[0][0]  # the graph began later
    for live, alone in zip(witness.in_force, twin.in_force, strict=False):
        assert live[0] - alone[0] == shift_ns and live[2] == alone[2], "told at another tick"
        np.testing.assert_array_equal(live[1], alone[1])
    assert result.outcome == episode.outcome
    np.testing.assert_array_equal(episode.actions[: result.ticks], result.commands)
