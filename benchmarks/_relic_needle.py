"""One informative token among noise: what a layer of attention with a sink learns to read, and to
leave unread (arXiv 2410.02751, section 3.2).

A needle carries a mark and one of four labels; its place is random. Other tokens carry noise where
a needle has its label, so a head that reads them answers noise. The last token asks. The answer is
the label's one-hot vector, or nothing at all, a vector of zeros, where there is no needle: then a
head without sinks has only noise to read, and itself.

Among thousands of tokens a needle has hardly any weight before something is learned, so contexts
grow while the fit runs: from `SHORT` tokens, by the same factor at each step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.episodic_transformer import EpisodicTransformer, TransformerSettings
from embodied_rl.nn.sink_attention import attend

WIDTH, HEADS, LABELS, COUNT = 32, 2, 4, 16
QUESTION, MARK = LABELS, LABELS + 1  # dimensions that say what a token is
SIZE = 2.0  # of what is not noise
NOTHING = 0.5  # an answer with no label above this is "nothing"
SHORT, GROWING = 64, 2 / 3  # tokens at first, share of the steps in which contexts grow
JUDGED = 64  # sequences of each of the five answers


class Learned(NamedTuple):
    """Of each of the same sequences, which were not trained on, in float64."""

    accuracy: np.ndarray  # (E,): 1 where the answer, of five, is right: a label or nothing
    noise_norm: np.ndarray  # (JUDGED,): length of the answer without a needle; 0 is right
    needle_norm: np.ndarray  # (4 * JUDGED,): with one; 1 is right


def sequences(label: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Tokens ``(N, length, WIDTH)`` with the needles of labels ``(N,)``; LABELS stands for none."""
    count = len(label)
    x = torch.randn(count, length, WIDTH, generator=generator)
    x[..., [QUESTION, MARK]] = 0.0
    place = torch.randint(0, length - 1, (count,), generator=generator)
    row = (label < LABELS).nonzero()[:, 0]
    place = place[row]
    x[row, place, :LABELS] = SIZE * F.one_hot(label[row], LABELS)
    x[row, place, MARK] = SIZE
    x[:, -1] = SIZE * F.one_hot(torch.tensor(QUESTION), WIDTH)
    return x


class Reader(nn.Module):
    """The first attention layer of a network, and an answer read from its newest token."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.net = EpisodicTransformer(TransformerSettings(WIDTH, HEADS, 1, WIDTH, mode))
        self.answer = nn.Linear(WIDTH, LABELS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n, WIDTH)`` of the first episode -> ``(B, LABELS)``."""
        block, sinks = self.net.blocks[0], self.net.sinks()
        # an episode's index turns queries and keys; that of the first is 0
        qkv = block.attention.qkv(block.norm_attention(x)).unflatten(-1, (3, HEADS, -1))
        query, *own = qkv.permute(2, 0, 3, 1, 4)
        memory = KeysValues(*own)
        if sinks is not None:
            memory = memory.with_first(sinks[0])
        heads = attend(query[:, :, -1:], memory).flatten(1)  # the newest token's alone
        return self.answer(block.attention.out(heads))


def grown(length: int, step: int, steps: int) -> int:
    """Tokens of the contexts at a step of the fit."""
    short = min(SHORT, length)
    return round(short * (length / short) ** min(1.0, step / (GROWING * steps)))


def fit(mode: str, length: int, steps: int, seed: int = 0, learning_rate: float = 1e-2) -> Learned:
    """Supervised, on new sequences at each step, the same for every mode."""
    torch.manual_seed(seed)
    generator, reader = torch.Generator().manual_seed(seed), Reader(mode)
    optimizer = torch.optim.Adam(reader.parameters(), lr=learning_rate, fused=True)
    for step in range(steps):
        label = torch.randint(0, LABELS + 1, (COUNT,), generator=generator)
        x = sequences(label, grown(length, step, steps), generator)
        wanted = F.one_hot(label, LABELS + 1)[:, :LABELS].float()
        optimizer.zero_grad()
        (reader(x) - wanted).square().sum(dim=-1).mean().backward()
        optimizer.step()
    return judged(reader, length)


@torch.no_grad()
def judged(reader: Reader, length: int) -> Learned:
    """On sequences that are the same for all."""
    generator = torch.Generator().manual_seed(length)
    label = torch.arange(LABELS + 1).repeat(JUDGED)
    parts = [reader(sequences(part, length, generator)) for part in label.split(COUNT)]
    answer = torch.cat(parts).double()
    right = F.pad(answer, (0, 1), value=NOTHING).argmax(dim=-1) == label
    norm, empty = answer.norm(dim=-1), label == LABELS
    return Learned(right.double().numpy(), norm[empty].numpy(), norm[~empty].numpy())
