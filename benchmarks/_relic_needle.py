"""One informative token among noise: what a layer of attention with a sink learns to read, and to
leave unread (arXiv 2410.02751, section 3.2).

A needle carries a mark and one of four labels; its place is random. Other tokens carry noise where
a needle has its label, so a head that reads them answers noise. The last token asks. The answer is
the label's one-hot vector, or nothing at all, a vector of zeros, where there is no needle: then a
head without sinks has only noise to read, and itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.episodes import rotation
from embodied_rl.nn.episodic_transformer import EpisodicTransformer, TransformerSettings
from embodied_rl.nn.sink_attention import attend

WIDTH, HEADS, LABELS, COUNT = 32, 2, 4, 32
QUESTION, MARK = LABELS, LABELS + 1  # dimensions that say what a token is
SIZE = 2.0  # of what is not noise
NOTHING = 0.5  # an answer with no label above this is "nothing"


class Learned(NamedTuple):
    """Of sequences that were not trained on."""

    accuracy: float  # of five answers: the labels and nothing
    noise_norm: float  # length of the answer where there is no needle; 0 is right
    needle_norm: float  # where there is one; 1 is right


def sequences(length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens ``(COUNT, length, WIDTH)`` and labels ``(COUNT,)``; LABELS stands for no needle."""
    x = torch.randn(COUNT, length, WIDTH, generator=generator)
    x[..., [QUESTION, MARK]] = 0.0
    label = torch.randint(0, LABELS + 1, (COUNT,), generator=generator)
    place = torch.randint(0, length - 1, (COUNT,), generator=generator)
    row = (label < LABELS).nonzero()[:, 0]
    place = place[row]
    x[row, place, :LABELS] = SIZE * F.one_hot(label[row], LABELS)
    x[row, place, MARK] = SIZE
    x[:, -1] = SIZE * F.one_hot(torch.tensor(QUESTION), WIDTH)
    return x, label


class Reader(nn.Module):
    """The first attention layer of a network, and an answer read from its newest token."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.net = EpisodicTransformer(TransformerSettings(WIDTH, HEADS, 1, WIDTH, mode))
        self.answer = nn.Linear(WIDTH, LABELS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n, WIDTH)`` -> ``(B, LABELS)``."""
        block, sinks = self.net.blocks[0], self.net.sinks()
        turn = rotation(torch.zeros(1, x.shape[1]), WIDTH // HEADS)
        turn = type(turn)(*(part.expand(len(x), -1, -1, -1, -1) for part in turn))
        query, *own = block.attention.project(block.norm_attention(x), turn)
        memory = KeysValues(*own)
        if sinks is not None:
            memory = memory.with_first(sinks[0])
        heads = attend(query[:, :, -1:], memory).flatten(1)  # the newest token's alone
        return self.answer(block.attention.out(heads))


def fit(mode: str, length: int, steps: int, seed: int = 0, learning_rate: float = 1e-2) -> Learned:
    """Supervised, on new sequences at each step."""
    torch.manual_seed(seed)
    generator, reader = torch.Generator().manual_seed(seed), Reader(mode)
    optimizer = torch.optim.Adam(reader.parameters(), lr=learning_rate, fused=True)
    for _ in range(steps):
        x, label = sequences(length, generator)
        wanted = F.one_hot(label, LABELS + 1)[:, :LABELS].float()
        optimizer.zero_grad()
        (reader(x) - wanted).square().sum(dim=-1).mean().backward()
        optimizer.step()
    return judged(reader, length, generator)


@torch.no_grad()
def judged(reader: Reader, length: int, generator: torch.Generator) -> Learned:
    """On eight batches of new sequences."""
    answers, labels = [], []
    for _ in range(8):
        x, label = sequences(length, generator)
        answers.append(reader(x))
        labels.append(label)
    answer, label = torch.cat(answers), torch.cat(labels)
    right = F.pad(answer, (0, 1), value=NOTHING).argmax(dim=-1) == label
    norm, empty = answer.norm(dim=-1), label == LABELS
    return Learned(
        float(right.float().mean()), float(norm[empty].mean()), float(norm[~empty].mean())
    )
