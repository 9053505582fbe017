"""Names of the topics in a bag, and how those of an embodiment file are found among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from embodied_rl.core.errors import UserError

EMBODIMENT = "embodiment"
INSTRUCTION = "instruction"
EPISODE_START = "episode/start"
EPISODE_OUTCOME = "episode/outcome"
EXECUTED = "command/executed"
CHUNK = "policy/chunk"

STRING = "std_msgs/msg/String"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"

# what an episode's bag holds besides the streams and actuators of the embodiment file
EPISODE_TOPICS: Mapping[str, str] = {
    EMBODIMENT: STRING,
    INSTRUCTION: STRING,
    EPISODE_START: STRING,
    EPISODE_OUTCOME: STRING,
    CHUNK: TRAJECTORY,
    EXECUTED: TRAJECTORY,
}


def namespace_of(recorded: Iterable[str], relative: Iterable[str], origin: str) -> str:
    """The namespace, such as ``/robot1`` or ````, under which most ``relative`` names stand.

    Raises:
        UserError: two robots fit equally well; both are named.
    """
    recorded, found = list(recorded), Counter[str]()
    for name in set(relative):
        for topic in recorded:
            if topic == f"/{name}" or topic.endswith(f"/{name}"):
                found[topic[: -len(name) - 1]] += 1
    if not found:
        return ""
    best = max(found.values())
    fitting = sorted(namespace for namespace, count in found.items() if count == best)
    if len(fitting) > 1:
        raise UserError(
            f"{origin}: expected the topics of one robot, saw {len(fitting)} that fit equally: "
            f"namespaces {fitting}; choose one with --namespace"
        )
    return fitting[0]
