"""Names of the topics in a bag, and how those of an embodiment file are found among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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


def feedback_of(command_topic: str) -> str:
    """Where the action server of a controller says what it does, beside its command topic."""
    return f"{command_topic.rpartition('/')[0]}/follow_joint_trajectory/_action/feedback".lstrip(
        "/"
    )


def namespace_of(recorded: Iterable[str], relative: Iterable[str], origin: str) -> str:
    """The namespace, such as ``/robot1`` or ````, under which most ``relative`` names stand.

    Raises:
        UserError: two robots fit equally well; both are named.
    """
    recorded = ["/" + topic.lstrip("/") for topic in recorded]
    found = Counter[str]()
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


@dataclass(frozen=True)
class Names:
    """How a bag spells the topics of an embodiment file.

    Args:
        recorded: the bag's topics. Programs that write bags themselves often leave the leading
            slash out.
        namespace: of the robot's topics.
        remap: name in the embodiment file -> recorded name; both ending in ``/`` for all names
            that begin so.
    """

    recorded: Iterable[str]
    namespace: str = ""
    remap: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """The recorded topic of a relative name; the name that was expected if there is none."""
        topic = self._remapped(name)
        for spelling in (topic, topic.lstrip("/"), "/" + topic.lstrip("/")):
            if spelling in self.recorded:
                return spelling
        return topic

    def _remapped(self, name: str) -> str:
        if name in self.remap:
            return self.remap[name]
        fitting = [old for old in self.remap if old.endswith("/") and name.startswith(old)]
        if fitting:
            old = max(fitting, key=len)
            return self.remap[old] + name.removeprefix(old)
        return f"{self.namespace}/{name}"


def parse_remaps(texts: Iterable[str]) -> dict[str, str]:
    """``FROM:=TO`` each, as ROS 2 writes it.

    Raises:
        UserError: another form.
    """
    found = {}
    for text in texts:
        old, mark, new = text.partition(":=")
        old = old.lstrip("/")
        if not (mark and old and new) or old.endswith("/") != new.endswith("/"):
            raise UserError(
                "--remap: expected FROM:=TO, FROM being a topic of the embodiment file and TO the "
                f"recorded one (both end in '/' for all that begin so), saw '{text}'"
            )
        found[old] = new
    return found
