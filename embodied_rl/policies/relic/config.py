"""What makes one ReLIC model, as a flat YAML mapping.

The arms of the paper are values of it:

=============================== ================================
ReLIC                           ``sink_mode: kv0``, or ``kv``
without attention over episodes ``inter_episode: false``
without sinks                   ``sink_mode: none``
softmax-one                     ``sink_mode: k0v0``
sink token                      ``sink_mode: token``
=============================== ================================
"""

from __future__ import annotations

from dataclasses import dataclass

from embodied_rl.core.ranges import check_range
from embodied_rl.nn.episodic_transformer import TransformerSettings
from embodied_rl.policies.relic.recall import LandmarkLayout

POLICY = "relic"
HEADINGS = 4
MOST_CODES = 2**15  # a memory stores them in 16 bits


@dataclass(frozen=True)
class RelicConfig:
    """What a step shows, and the shape of the network.

    Attributes:
        action_count: discrete actions.
        horizon: most steps of an episode; the table of positions has as many rows.
        feature_count: numbers of a view, taken as they are.
        cell_count: cells of a view's map crop, 0 for none; ``code_count`` kinds of them, each a
            vector of ``code_width``; ``crop_width`` numbers come out for the whole crop.
        object_types, map_width, map_height: of a home, where the network is to recall what it has
            seen (`recall.py`); 0 for none.
        previous_reward: whether the reward of the step before is shown.
        width, heads, layers, mlp, sink_mode, sinks, inter_episode: of `TransformerSettings`.
    """

    action_count: int
    horizon: int
    feature_count: int
    cell_count: int = 0
    code_count: int = 0
    code_width: int = 8
    crop_width: int = 64
    object_types: int = 0
    map_width: int = 0
    map_height: int = 0
    previous_reward: bool = True
    width: int = 64
    heads: int = 4
    layers: int = 2
    mlp: int = 256
    sink_mode: str = "kv"
    sinks: int = 1
    inter_episode: bool = True

    def __post_init__(self) -> None:
        check_range(self, "action_count", least=2)
        check_range(self, "horizon", "code_width", "crop_width", least=1)
        check_range(self, "feature_count", "cell_count", "code_count", least=0)
        check_range(self, "object_types", "map_width", "map_height", least=0)
        if self.feature_count + self.cell_count == 0:
            raise ValueError("feature_count: expected features or cells, saw neither")
        if (self.cell_count > 0) != (self.code_count > 1):
            raise ValueError(
                f"code_count: expected 2 or more with cells and 0 without, saw {self.code_count} "
                f"with {self.cell_count} cells"
            )
        if self.landmarks is not None and self.landmarks.feature_count != self.feature_count:
            raise ValueError(
                f"feature_count: expected {self.landmarks.feature_count} with object_types "
                f"{self.object_types} on a map of {self.map_width} x {self.map_height}, saw "
                f"{self.feature_count}"
            )
        if self.code_count > MOST_CODES:
            raise ValueError(f"code_count: expected at most {MOST_CODES}, saw {self.code_count}")
        _ = self.transformer

    @property
    def landmarks(self) -> LandmarkLayout | None:
        """How the features say where objects are, for a network that recalls them."""
        if not self.object_types:
            return None
        pose = self.map_width + self.map_height + HEADINGS
        return LandmarkLayout(self.object_types, self.map_width, self.map_height, pose)

    @property
    def transformer(self) -> TransformerSettings:
        """The part that is the transformer's."""
        return TransformerSettings(
            self.width, self.heads, self.layers, self.mlp,
            self.sink_mode, self.sinks, self.inter_episode,
        )  # fmt: skip
