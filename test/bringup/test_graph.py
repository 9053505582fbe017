"""The graphs: what runs, in which order, with which parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from embodied_rl.bringup import environment, graph, worlds
from embodied_rl.bringup.graph import Role, build
from embodied_rl.bringup.runner import command_of, parameter_text
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError


@pytest.fixture
def robot_file() -> str:
    return str(environment.share_file(worlds.WORLD_EMBODIMENT["tabletop"]))


@pytest.fixture
def checkpoint(tmp_path) -> str:
    folder = tmp_path / "my_model"
    folder.mkdir()
    (folder / "config.yaml").write_text("policy: ptp\n")
    return str(folder)


def names(built: graph.Graph, stage: int) -> list[str]:
    return [node.name for node in built.nodes if node.stage == stage]


def test_sim_starts_the_clock_first_and_the_episodes_last(tmp_path):
    built = build("sim", {"record": "true", "episodes": "3", "out": str(tmp_path / "run")})
    assert names(built, 0) == ["sim_node", "wait_for_clock"]
    assert names(built, 1) == [
        "command_gate_node",
        "policy_node",
        "recorder_node",
        "activate_policy",
    ]
    assert names(built, 2) == ["episode_node"]
    by_name = {node.name: node for node in built.nodes}
    assert by_name["wait_for_clock"].role is Role.GATE
    assert by_name["activate_policy"].parameters["target"] == "policy_node"
    assert by_name["episode_node"].role is Role.CONDUCTOR and by_name["episode_node"].foreground
    assert not built.endless
    for node in built.nodes:  # the simulator makes the time, everybody else follows it
        assert node.parameters.get("use_sim_time", False) is (node.name != "sim_node")
    assert by_name["recorder_node"].parameters["out"] == str(tmp_path / "run")


def test_parameter_names_are_the_ones_the_nodes_declare():
    built = build("sim", {"record": "true"})
    told = {node.name: set(node.parameters) - {"use_sim_time"} for node in built.nodes}
    assert told["sim_node"] == {
        "world", "task", "mode", "seed", "cameras", "visuals", "embodiment", "command_timeout_s",
    }  # fmt: skip
    assert told["policy_node"] == {
        "policy", "task", "embodiment", "mode", "memory_path", "policy_options",
    }  # fmt: skip
    four = build("sim", {"policy": "tgpo_arm", "world": "reach", "policy_options": "{samples: 4}"})
    assert [n.parameters["policy_options"] for n in four.nodes if n.name == "policy_node"] == [
        "{samples: 4}"
    ]
    assert told["command_gate_node"] == {"embodiment", "mode"}
    assert told["recorder_node"] == {"embodiment", "out", "instruction"}
    assert told["episode_node"] == {
        "episodes", "mode", "record", "pictures", "monitor", "out",
    }  # fmt: skip


def test_a_specification_is_the_task_of_simulator_and_policy(tmp_path):
    arena = {"world": "arena", "spec": "unicycle_02", "out": str(tmp_path)}
    built = build("sim", arena)
    by_name = {node.name: node for node in built.nodes}
    spec = str(environment.share_file("sim_worlds/stl_tasks/unicycle_02.yaml"))
    assert by_name["sim_node"].parameters["task"] == spec
    assert by_name["sim_node"].parameters["cameras"] == "overhead"
    assert by_name["policy_node"].parameters["task"] == spec
    assert by_name["policy_node"].parameters["policy"].endswith("models/tgpo_unicycle")
    view = by_name["plan_view_node"]
    assert view.stage == 1 and view.parameters["out"] == str(tmp_path)
    assert by_name["episode_node"].parameters["pictures"] is True
    own = tmp_path / "own.yaml"
    own.write_text(Path(spec).read_text())
    built = build("sim", arena | {"spec": str(own), "policy": "tgpo", "cameras": "none"})
    assert built.nodes[0].parameters["task"] == str(own)
    assert built.nodes[0].parameters["cameras"] == "none"
    embodiment = str(environment.share_file(worlds.WORLD_EMBODIMENT["arena"]))
    robot = {"embodiment": embodiment, "policy": "tgpo", "spec": str(own)}
    by_name = {node.name: node for node in build("robot", robot).nodes}
    assert by_name["policy_node"].parameters["task"] == str(own)
    assert by_name["policy_node"].parameters["policy"].endswith("models/tgpo_unicycle")
    assert "plan_view_node" in by_name


def test_other_policies_have_no_plan_to_show(robot_file, checkpoint):
    sim = build("sim", {"policy": checkpoint})
    robot = build("robot", {"embodiment": robot_file, "policy": checkpoint})
    assert all(node.name != "plan_view_node" for node in (*sim.nodes, *robot.nodes))
    assert sim.nodes[0].parameters["task"] == "replace_object"
    assert sim.nodes[0].parameters["cameras"] == "fixed,wrist"


RETURN_HOME = "sim_worlds/tabletop/return_home.stl.yaml"


def test_a_monitor_watches_a_file_or_the_task(robot_file, checkpoint):
    def monitor(kind: str, given: dict[str, str]) -> graph.NodeSpec | None:
        return {node.name: node for node in build(kind, given).nodes}.get("stl_monitor_node")

    file = str(environment.share_file(RETURN_HOME))
    assert monitor("sim", {}) is None
    assert monitor("robot", {"embodiment": robot_file, "policy": checkpoint}) is None
    found = monitor("sim", {"monitor": file, "on_violation": "stop"})
    assert found.stage == 1 and found.role is Role.REQUIRED
    assert found.parameters == {
        "embodiment": robot_file, "spec": file, "anchor": "episode", "on_violation": "stop",
        "calibration": "", "use_sim_time": True,
    }  # fmt: skip
    robot = {"embodiment": robot_file, "policy": checkpoint, "monitor": file}
    assert monitor("robot", robot).parameters["anchor"] == "start"
    arena = monitor("sim", {"world": "arena", "spec": "unicycle_02"})
    assert arena.parameters["spec"].endswith("unicycle_02.yaml")
    conductor = build("sim", {"monitor": file}).nodes[-1]
    assert conductor.parameters["monitor"] is True


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"on_violation": "stop"}, "on_violation:=stop is for a monitor: add monitor:=FILE"),
        ({"monitor": "nowhere.yaml"}, "nowhere.yaml: cannot be read: No such file"),
        ({"monitor": RETURN_HOME, "world": "arena", "spec": "unicycle_02"}, "stream: expected one"),
        ({"monitor": RETURN_HOME, "calibration": "none.yaml"}, "none.yaml: cannot be read"),
    ],
)
def test_a_monitor_that_cannot_be_is_refused_before_anything_starts(given, complaint):
    given = dict(given)
    if given.get("monitor") == RETURN_HOME:
        given["monitor"] = str(environment.share_file(RETURN_HOME))
    with pytest.raises(UserError, match=complaint):
        build("sim", given)


def test_a_namespace_gets_a_clock_of_its_own():
    alone, left = build("sim", {}), build("sim", {"namespace": "/left"})
    assert all(node.remappings == () for node in alone.nodes)
    assert all(("/clock", "clock") in node.remappings for node in left.nodes)
    command = command_of(left.nodes[0], left.namespace)
    assert "__ns:=/left" in command and "/clock:=clock" in command
    assert not any(word.startswith("__ns") for word in command_of(alone.nodes[0], ""))


@pytest.mark.parametrize(
    ("given", "topic"),
    [
        ({}, "/clock"),
        ({"namespace": "left"}, "clock"),
        ({"namespace": "left", "clock": "/clock"}, "/clock"),
        ({"clock": "world/clock"}, "world/clock"),
    ],
)
def test_both_sides_of_a_simulated_clock_agree(robot_file, checkpoint, given, topic):
    robot = {"embodiment": robot_file, "use_sim_time": "true"} | given
    for built in (
        build("sim", {"record": "true"} | given),
        build("robot", {"policy": checkpoint, "record": "true"} | robot),
        build("record", robot),
    ):
        assert {dict(node.remappings).get("/clock", "/clock") for node in built.nodes} == {topic}


def test_commands_run_this_interpreter_and_quote_texts():
    command = command_of(build("sim", {"seed": "3"}).nodes[0], "")
    assert command[:4] == [sys.executable, "-m", "embodied_rl.nodes.sim_node", "--ros-args"]
    assert "seed:=3" in command and 'world:="tabletop"' in command
    for value in (True, 3, 1.5, "no", "1", "", 'say "hi": ü', "fixed,wrist"):
        assert yaml.safe_load(parameter_text(value)) == value
        assert type(yaml.safe_load(parameter_text(value))) is type(value)


def test_robot_keeps_the_command_gate_longest(robot_file, checkpoint):
    built = build("robot", {"embodiment": robot_file, "policy": checkpoint})
    assert [node.name for node in built.nodes] == [
        "command_gate_node",
        "policy_node",
        "activate_policy",
    ]
    # two control periods must pass between the death of the policy and the end of the gate
    assert built.settle_s >= 2 * Embodiment.load(robot_file).period_ns / 1e9
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE" not in built.environment
    simulated = build(
        "robot", {"embodiment": robot_file, "policy": checkpoint, "use_sim_time": "true"}
    )
    assert simulated.nodes[0].name == "wait_for_clock"


def test_a_memory_lies_beside_the_results_of_its_robot(tmp_path):
    def memory_path(**given: str) -> object:
        nodes = build("sim", given).nodes
        return next(n for n in nodes if n.name == "policy_node").parameters["memory_path"]

    assert memory_path(out=str(tmp_path)) == str(tmp_path / "policy_memory.safetensors")
    assert memory_path(memory=str(tmp_path / "kept")) == str(tmp_path / "kept")


def test_record_is_the_recorder_alone(robot_file):
    built = build("record", {"embodiment": robot_file, "instruction": "put it back"})
    assert [node.name for node in built.nodes] == ["recorder_node"]
    assert built.nodes[0].parameters["instruction"] == "put it back"


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("simulator", {}, "unknown graph 'simulator'"),
        ("sim", {"task": "replace"}, "expected one of replace_object, count_pushes"),
        ("sim", {"world": "kitchen"}, "expected one of tabletop, arena, reach, apartment"),
        ("sim", {"task": "find_object"}, "task:=find_object: world tabletop has replace_object"),
        ("sim", {"world": "apartment", "task": "return_home"}, "apartment has find_object"),
        ("sim", {"world": "apartment", "spec": "x"}, "world apartment takes task:=..."),
        ("sim", {"world": "apartment", "cameras": "wrist"}, "world apartment has front"),
        ("sim", {"world": "arena", "task": "return_home"}, "world arena takes spec:=..."),
        ("sim", {"spec": "unicycle_02"}, "takes task:=...; with a spec: arena, reach"),
        ("sim", {"world": "arena", "spec": "unicycle_2"}, "(did you mean unicycle_02?)"),
        ("sim", {"world": "arena", "spec": "/nowhere.yaml"}, "spec:=/nowhere.yaml: no such file"),
        ("sim", {"world": "arena", "cameras": "wrist"}, "world arena has overhead"),
        ("sim", {"policy_options": "{samples: 4}"}, "expected no options, saw 'samples'"),
        ("sim", {"policy_options": "[4]"}, "policy_options: expected a mapping"),
        ("sim", {"policy_options": "{"}, "policy_options"),
        (
            "sim",
            {"world": "reach", "policy_options": "{samples: 0}"},
            "policy_options: samples: expected at least 1, saw 0",
        ),
        ("sim", {"clock": "my clock"}, "clock:=my clock: expected a ROS topic"),
        ("sim", {"policy": "exprt"}, "no such model (did you mean expert?)"),
        ("sim", {"embodiment": "/nowhere.yaml"}, "embodiment:=/nowhere.yaml: no such file"),
        ("robot", {}, "graph 'robot' needs embodiment:="),
        ("record", {"embodiment": "/nowhere.yaml"}, "no such file"),
    ],
)
def test_mistakes_are_named(name, given, said):
    with pytest.raises(UserError) as caught:
        build(name, given)
    assert said in str(caught.value)


def test_a_mistake_in_the_embodiment_file_is_named_before_anything_starts(tmp_path, robot_file):
    path = tmp_path / "arm.yaml"
    path.write_text(Path(robot_file).read_text().replace("rate_hz: 50", "rate_hz: fast", 1))
    with pytest.raises(UserError, match=r"arm\.yaml: streams\.arm_position\.rate_hz: expected"):
        build("record", {"embodiment": str(path)})


def test_tgpo_stands_for_the_model_of_the_robots_kind(robot_file, monkeypatch, tmp_path):
    arena = Embodiment.load(environment.share_file(worlds.WORLD_EMBODIMENT["arena"]))
    assert graph.find_policy("tgpo", arena).endswith("models/tgpo_unicycle")
    spec = {"spec": "unicycle_02"}
    with pytest.raises(UserError, match="task, spec: expected one of them"):
        build("robot", {"embodiment": robot_file, "policy": "tgpo", "task": "x"} | spec)
    text = arena.text.replace("[linear_x, angular_z]", "[linear_x, linear_y]")
    with pytest.raises(UserError, match="driven as none of"):
        graph.find_policy("tgpo", Embodiment.parse(text, "other.yaml"))
    monkeypatch.setattr(environment, "share_folders", lambda: [tmp_path])
    with pytest.raises(UserError, match="expected a shipped model tgpo_unicycle, saw none"):
        graph.find_policy("tgpo", arena)


def test_relic_stands_for_the_model_of_the_robots_homes(robot_file, monkeypatch, tmp_path):
    shipped = tmp_path / "models" / "relic_apartment"
    shipped.mkdir(parents=True)
    (shipped / "config.yaml").write_text("policy: relic\n")
    folders = [tmp_path, *environment.share_folders()[:1]]
    monkeypatch.setattr(environment, "share_folders", lambda: folders)
    sim = {node.name: node for node in build("sim", {"world": "apartment"}).nodes}
    assert sim["policy_node"].parameters["policy"] == str(shipped)
    assert sim["policy_node"].parameters["task"] == "find_object"
    told = sim["sim_node"].parameters
    assert (told["task"], told["cameras"], told["mode"]) == ("find_object", "front", "lockstep")
    assert "plan_view_node" not in sim and sim["episode_node"].parameters["pictures"] is False
    home_base = {"embodiment": str(environment.share_file(worlds.WORLD_EMBODIMENT["apartment"]))}
    robot = {node.name: node for node in build("robot", home_base | {"policy": "relic"}).nodes}
    assert robot["policy_node"].parameters["policy"] == str(shipped)
    with pytest.raises(UserError, match="one of home_base, saw ur5e_2f85"):
        build("robot", {"embodiment": robot_file, "policy": "relic"})
    monkeypatch.setattr(environment, "share_folders", lambda: [tmp_path / "models"])
    with pytest.raises(UserError, match="expected a shipped model relic_apartment, saw none"):
        graph.find_policy("relic", Embodiment.load(Path(home_base["embodiment"])))


def test_a_robot_has_no_expert_and_no_silent_instruction(robot_file, checkpoint):
    with pytest.raises(UserError, match="simulator only"):
        build("robot", {"embodiment": robot_file, "policy": "expert"})
    with pytest.raises(UserError, match="graph 'robot' needs policy:="):
        build("robot", {"embodiment": robot_file})
    with pytest.raises(UserError, match="record:=true"):
        build("robot", {"embodiment": robot_file, "policy": checkpoint, "instruction": "go"})


def test_policies_by_name_and_by_folder(checkpoint, monkeypatch, tmp_path):
    assert graph.find_policy("expert") == "expert"
    assert graph.find_policy(checkpoint) == checkpoint
    shipped = tmp_path / "share" / "models" / "ptp_demo"
    shipped.mkdir(parents=True)
    (shipped / "config.yaml").write_text("policy: ptp\n")
    monkeypatch.setattr(environment, "share_folders", lambda: [tmp_path / "share"])
    assert graph.find_policy("ptp_demo") == str(shipped)
    with pytest.raises(UserError, match="there are expert, ptp_demo"):
        graph.find_policy("ptp_dmo")


def test_the_tables_here_are_the_simulators(robot_file):
    """The names are repeated in the graph so that a help text does not load MuJoCo."""
    registry = pytest.importorskip("embodied_rl.sim.registry")
    assert set(worlds.WORLD_EMBODIMENT) == set(registry.WORLDS) == set(worlds.CAMERAS)
    named = {*registry.TASKS, registry.FIND_OBJECT}
    assert {name: registry.world_of(name) for name in named} == {
        name: world for world, tasks in worlds.TASKS.items() for name in tasks
    }
    assert set(graph.DEFAULT_POLICY) == set(registry.WORLDS)
    for name, world in registry.WORLDS.items():
        assert worlds.WORLD_EMBODIMENT[name] == f"sim_worlds/{world.embodiment_file}"
        assert set(worlds.CAMERAS[name]) == set(world.cameras)


@pytest.fixture
def plain_ros(monkeypatch):
    """No variable of the user's own decides how far a graph speaks."""
    for name in (
        *environment.PROFILE_VARIABLES,
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
        "ROS_LOCALHOST_ONLY",
        "ROS_DISTRO",
    ):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_profile_is_set_unless_the_user_has_one(plain_ros):
    for distro, name in zip(("jazzy", "kilted"), environment.PROFILE_VARIABLES, strict=True):
        plain_ros.setenv("ROS_DISTRO", distro)
        found = environment.defaults(local=True)
        assert "16777216" in Path(found[name]).read_text(encoding="utf-8")
        assert len(set(environment.PROFILE_VARIABLES) & set(found)) == 1  # Kilted warns of the old
        with plain_ros.context() as changed:
            changed.setenv(name, "/mine.xml")
            assert not set(environment.PROFILE_VARIABLES) & set(environment.defaults(local=True))


def test_a_simulation_stays_on_this_machine_unless_told_otherwise(plain_ros):
    local = str(environment.share_file(environment.LOCAL_PROFILE))
    range_name = "ROS_AUTOMATIC_DISCOVERY_RANGE"

    def profile(given: dict[str, str]) -> str:
        return build("sim", given).environment[environment.profile_variable()]

    assert profile({}) == local
    assert build("sim", {}).environment[range_name] == "LOCALHOST"
    assert profile({"network": "true"}) != local
    assert range_name not in build("sim", {"network": "true"}).environment
    with plain_ros.context() as changed:
        changed.setenv("ROS_STATIC_PEERS", "10.0.0.7")  # for the robot, from somebody's .bashrc
        assert profile({}) == local
        changed.setenv(range_name, "SUBNET")
        assert profile({}) != local
    with plain_ros.context() as changed:
        changed.setenv("ROS_DISTRO", "humble")  # does not know of a range
        found = build("sim", {}).environment
        assert found["ROS_LOCALHOST_ONLY"] == "1" and range_name not in found


def test_the_two_profiles_differ_in_the_interface_alone():
    def lines(name: str) -> list[str]:
        text = environment.share_file(name).read_text(encoding="utf-8")
        return text[text.index("<profiles") :].splitlines()

    confined = lines(environment.LOCAL_PROFILE)
    first = next(i for i, line in enumerate(confined) if "<interfaceWhiteList>" in line)
    assert "127.0.0.1" in confined[first + 1]
    assert confined[:first] + confined[first + 3 :] == lines(environment.PROFILE)


def test_the_mark_of_another_interpreter_is_not_inherited(monkeypatch):
    own, other = (
        f"{sys.prefix}/lib/python3/site-packages/ros_rcl.libs",
        "/other/site-packages/ros_x.libs",
    )
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{own}:/usr/lib/mine")
    assert environment.child_environment({})["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] == "1"
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{other}:/usr/lib/mine")
    cleaned = environment.child_environment({"A": "b"})
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in cleaned
    assert cleaned["LD_LIBRARY_PATH"] == "/usr/lib/mine" and cleaned["A"] == "b"


def test_the_graph_is_built_without_ros_torch_or_a_simulator():
    script = (
        "import sys; from embodied_rl.bringup.graph import build; build('sim', {});"
        "print([m for m in ('rclpy', 'torch', 'mujoco') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_gate_waits_for_a_monitor_that_may_stop_the_robot():
    def gate(**given: str) -> dict:
        nodes = build("sim", {"world": "arena", **given}).nodes
        return next(node for node in nodes if node.name == "command_gate_node").parameters

    assert gate(on_violation="stop")["required_alive"] == "stl_monitor_node/alive"
    assert "required_alive" not in gate()
