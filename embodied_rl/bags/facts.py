"""What a bag says about itself: its robot, the task, and where episodes were declared to begin."""

from __future__ import annotations

from dataclasses import dataclass, field

from embodied_rl.bags import topics as names
from embodied_rl.bags.messages import Decoder
from embodied_rl.bags.read import Bag
from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo


@dataclass(frozen=True)
class Start:
    """A declared start of an episode, and when it was recorded."""

    log_ns: int
    info: EpisodeInfo


@dataclass
class Facts:
    """What a bag says about its episodes before any row is built."""

    embodiment_text: str = ""
    starts: list[Start] = field(default_factory=list)  # in the order of recording
    instructions: list[tuple[int, str]] = field(default_factory=list)  # log time, text

    @property
    def info(self) -> EpisodeInfo | None:
        """The episode that was declared last: what went before was latched."""
        return max((s.info for s in self.starts), key=lambda info: info.start_ns, default=None)

    def instruction(self, info: EpisodeInfo | None, until_ns: int) -> str:
        """The task of an episode that ends at a log time."""
        if info is not None and info.instruction:
            return info.instruction
        given = [text for log_ns, text in self.instructions if log_ns < until_ns]
        first = [text for _, text in self.instructions[:1]]
        return (given or first or [""])[-1]


def read_facts(bag: Bag, spelling: names.Names) -> Facts:
    """Embodiment text, instructions and starts of episodes, as far as the bag has them."""
    facts, decoder = Facts(), Decoder()
    wanted = [names.EMBODIMENT, names.INSTRUCTION, names.EPISODE_START]
    present = {spelling.of(name): name for name in wanted}
    chosen = [topic for topic in present if has(bag, topic, names.STRING)]
    for message in bag.messages(chosen):
        name = present[message.topic]
        try:
            text = decoder(message.topic, names.STRING, message.data).data
            if name == names.EPISODE_START:
                facts.starts.append(
                    Start(message.log_time_ns, EpisodeInfo.from_yaml(text, message.topic))
                )
            elif name == names.EMBODIMENT:
                facts.embodiment_text = text
            else:
                facts.instructions.append((message.log_time_ns, text))
        except UserError as error:
            bag.report.add_error(message.topic, error)
    facts.starts.sort(key=lambda start: start.log_ns)
    facts.instructions.sort()
    return facts


def embodiment_of(bag: Bag, facts: Facts, given: Embodiment | None) -> Embodiment:
    """The given embodiment, else the one that was recorded.

    Raises:
        UserError: there is neither, or the recorded text is not valid.
    """
    if given is not None:
        return given
    if not facts.embodiment_text:
        raise UserError(
            f"{bag.place.name}: expected the robot's description on topic 'embodiment', saw none; "
            "name the file with --embodiment"
        )
    return Embodiment.parse(facts.embodiment_text, f"{bag.place.name}: /embodiment")


def has(bag: Bag, topic: str, kind: str) -> bool:
    info = bag.topics.get(topic)
    return info is not None and info.count > 0 and info.type == kind


def find_namespace(bag: Bag, embodiment: Embodiment | None) -> str:
    """The namespace of the robot's topics in a bag.

    Raises:
        UserError: two robots fit equally well.
    """
    relative = [names.EMBODIMENT, names.EPISODE_START]
    if embodiment is not None:
        relative += embodiment.topics()
        relative += [command.topic for command in embodiment.commands.values()]
    return names.namespace_of(bag.topics, relative, bag.place.name)
