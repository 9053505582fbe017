"""The transformer over episodes: a step equals the full pass, nothing sees the future, and sinks do
what their formula says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from embodied_rl.core.checkpoint import load_checkpoint, save_checkpoint
from embodied_rl.core.errors import UserError
from embodied_rl.nn.attention import KeysValues
from embodied_rl.nn.episodes import (
    EpisodePositions,
    paired,
    rotate,
    rotation,
    turn_planes,
    turns,
)
from embodied_rl.nn.episodic_transformer import EpisodicTransformer, TransformerSettings
from embodied_rl.nn.sink_attention import MODES, add_sinks, attend, causal_mask, sink_share

WIDTH = 32


def network(
    mode: str = "kv", sinks: int = 1, inter_episode: bool = True, heads: int = 4
) -> EpisodicTransformer:
    """With weights and sinks large enough that an error in any part is seen in the output."""
    torch.manual_seed(MODES.index(mode) + 10 * sinks)
    net = EpisodicTransformer(TransformerSettings(WIDTH, heads, 2, 64, mode, sinks, inter_episode))
    for name, parameter in net.named_parameters():
        parameter.data.normal_(0.0, 0.5 if "sink" in name else 0.2)
    return net


def sequences(batch: int, steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens, and episodes with random boundaries; two of them are one step long."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(batch, steps, generator=generator) < 0.08
    first[:, :3] = True
    tokens = torch.randn(batch, steps, WIDTH, generator=generator)
    return tokens, first.long().cumsum(dim=1) - 1


def stepped(net: EpisodicTransformer, x: Tensor, episode: Tensor, **options) -> Tensor:
    cache = net.new_cache(batch=len(x), capacity=4, **options)
    return torch.stack([net.step(x[:, t], cache, episode[:, t]) for t in range(x.shape[1])], dim=1)


@pytest.mark.parametrize("inter_episode", [True, False])
@pytest.mark.parametrize("sinks", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_steps_equal_the_full_pass(mode, sinks, inter_episode):
    net = network(mode, sinks, inter_episode)
    for steps in (1, 2, 63, 64, 65):
        x, episode = sequences(3, steps, seed=steps)
        full = net(x, episode)
        assert full.square().mean().sqrt() > 0.1
        torch.testing.assert_close(stepped(net, x, episode), full.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("inter_episode", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_outputs_of_the_last_tokens_are_those_of_a_pass_over_all(mode, inter_episode):
    net = network(mode, 2, inter_episode)
    x, episode = sequences(2, 40)
    hidden = torch.rand(2, 40, 40, generator=torch.Generator().manual_seed(1)) < 0.3
    for mask in (None, ~hidden | torch.eye(40, dtype=torch.bool)):
        for first in (1, 20, 39):
            found = []
            for outputs in (net(x, episode, mask, first=first), net(x, episode, mask)[:, first:]):
                net.zero_grad()
                outputs.square().sum().backward()
                found.append([outputs, *(p.grad for p in net.parameters())])
            torch.testing.assert_close(*found, atol=1e-3, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("mode", MODES)
def test_4096_steps_equal_the_full_pass(mode):
    net = network(mode, heads=2)
    x, episode = sequences(1, 4096)
    full, cache, newest = net(x, episode), net.new_cache(), net.new_cache()
    assert full.square().mean().sqrt() > 0.1
    steps = [net.step(x[:, t], cache, episode[:, t]) for t in range(4096)]
    torch.testing.assert_close(torch.stack(steps, dim=1), full, atol=5e-5, rtol=0)
    ahead = net.extend(x[:, :4095], newest, episode[:, :4095])
    last = net.step(x[:, 4095], newest, episode[:, 4095])
    torch.testing.assert_close(ahead, full[:, :4095], atol=5e-5, rtol=0)
    torch.testing.assert_close(last, full[:, 4095], atol=5e-5, rtol=0)
    assert newest.length == cache.length == 4096
    # the negative control: a step that has lost one token of its past is seen
    newest.drop_newest(2)
    wrong = net.step(x[:, 4095], newest, episode[:, 4095])
    assert (wrong - full[:, 4095]).abs().max() > 5e-5


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_cache_stays_near(mode):
    net = network(mode)
    x, episode = sequences(2, 65)
    near = stepped(net, x, episode, dtype=torch.bfloat16)
    full = net(x, episode).detach()
    scale = full.square().mean().sqrt()
    torch.testing.assert_close(near / scale, full / scale, atol=3e-2, rtol=0)
    assert not torch.equal(near, full)


@pytest.mark.parametrize("inter_episode", [True, False])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ahead", [0, 1, 20, 64])
def test_many_at_once_then_one_by_one(mode, ahead, inter_episode):
    net = network(mode, 2, inter_episode)
    x, episode = sequences(2, 65)
    cache = net.new_cache(batch=2, capacity=4)
    parts = [net.extend(x[:, :ahead], cache, episode[:, :ahead])] if ahead else []
    for t in range(ahead, 65):
        parts.append(net.step(x[:, t], cache, episode[:, t])[:, None])
    torch.testing.assert_close(torch.cat(parts, dim=1), net(x, episode), atol=1e-5, rtol=0)


def test_episodes_counted_in_place_are_noticed():
    net = network("kv")
    x, episode = sequences(2, 30)
    counter, cache = torch.zeros(2, dtype=torch.int64), net.new_cache(batch=2)
    for t in range(30):
        counter.copy_(episode[:, t])
        last = net.step(x[:, t], cache, counter)
    torch.testing.assert_close(last, net(x, episode)[:, -1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("inter_episode", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_made_on_another_device_than_the_weights(mode, inter_episode):
    net = network(mode, inter_episode=inter_episode).to("meta")
    x, episode = (part.to("meta") for part in sequences(2, 30))
    cache = net.new_cache(batch=2)
    assert cache.device.type == net(x, episode).device.type == "meta"
    assert net.extend(x, cache, episode).device.type == net.sink_mass(cache).device.type == "meta"


def test_pieces_behind_a_long_past(monkeypatch):
    monkeypatch.setattr("embodied_rl.nn.episodic_transformer.PIECE", 7)
    net = network("kv")
    x, episode = sequences(2, 64)
    cache = net.new_cache(batch=2)
    parts = [net.extend(x[:, a:b], cache, episode[:, a:b]) for a, b in ((0, 10), (10, 64))]
    torch.testing.assert_close(torch.cat(parts, dim=1), net(x, episode), atol=1e-5, rtol=0)


@pytest.mark.parametrize("inter_episode", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_depends_on_the_future(mode, inter_episode):
    net = network(mode, 2, inter_episode)
    x, episode = sequences(2, 64)
    other = x.clone()
    other[:, 30:] += 5.0
    before, after = net(x, episode), net(other, episode)
    assert torch.equal(before[:, :30], after[:, :30])
    assert not torch.allclose(before[:, 30:], after[:, 30:])


def test_without_inter_episode_attention_episodes_do_not_touch():
    x, episode = sequences(1, 64)
    start = int((episode[0] == episode[0, 40]).nonzero()[0])
    other = x.clone()
    other[:, :start] += 5.0
    net = network("kv", inter_episode=False)
    assert torch.equal(net(x, episode)[:, start:], net(other, episode)[:, start:])
    net = network("kv", inter_episode=True)
    assert not torch.allclose(net(x, episode)[:, start:], net(other, episode)[:, start:])


def test_a_mask_narrows_what_is_seen():
    net = network("kv", 2)
    net.blocks = net.blocks[:1]  # one layer: a step depends on what it sees, and on nothing else
    x, episode = sequences(2, 20)
    newest_five = causal_mask(20, 20) & ~causal_mask(20, 20).tril(-5)
    masked, alone = net(x, episode, newest_five), net(x[:, 3:8], episode[:, 3:8])
    torch.testing.assert_close(masked[:, 7], alone[:, 4], atol=1e-5, rtol=0)
    everything = torch.ones(20, 20, dtype=torch.bool)  # the future stays hidden
    torch.testing.assert_close(net(x, episode, everything), net(x, episode), atol=1e-5, rtol=0)


def test_sequences_of_a_batch_do_not_touch():
    net = network("kv")
    x, episode = sequences(4, 40)
    order = torch.tensor([2, 0, 3, 1])
    full = net(x, episode)
    torch.testing.assert_close(net(x[order], episode[order]), full[order], atol=1e-6, rtol=0)
    for i in range(4):
        alone = net(x[i : i + 1], episode[i : i + 1])
        torch.testing.assert_close(alone[0], full[i], atol=1e-6, rtol=0)
    together = stepped(net, x, episode)
    torch.testing.assert_close(stepped(net, x[order], episode[order]), together[order])


@pytest.mark.parametrize("learned", [True, False])
def test_only_differences_of_episodes_count_unless_sink_keys_are_learned(learned):
    net = network("kv" if learned else "k0v")
    x, episode = sequences(2, 40)
    same = torch.allclose(net(x, episode), net(x, episode + 7), atol=1e-5)
    assert same != learned


def heads(steps: int = 20, sinks: int = 2) -> tuple[Tensor, KeysValues, KeysValues]:
    draw = torch.Generator().manual_seed(1)
    query, keys, values = (torch.randn(2, 4, steps, 8, generator=draw) for _ in range(3))
    sink = KeysValues(*(torch.randn(1, 4, sinks, 8, generator=draw) for _ in range(2)))
    return query, KeysValues(keys, values), sink


def scores(query: Tensor, keys: Tensor) -> Tensor:
    future = ~causal_mask(query.shape[2], keys.shape[2])
    return (query @ keys.transpose(-1, -2) / 8**0.5).masked_fill(future, float("-inf"))


def test_zero_sinks_are_the_softmax_with_one_more_in_its_denominator():
    query, memory, _ = heads()
    zero = KeysValues(torch.zeros(1, 4, 1, 8), torch.zeros(1, 4, 1, 8))
    exponentials = scores(query, memory.keys).double().exp()
    weights = exponentials / (1.0 + exponentials.sum(dim=-1, keepdim=True))
    expected = (weights @ memory.values.double()).float()
    seen = attend(query, memory.with_first(zero))
    torch.testing.assert_close(seen, expected, atol=1e-6, rtol=0)


def test_sinks_added_afterwards_by_log_sum_exp():
    query, memory, sinks = heads()
    lse = scores(query, memory.keys).logsumexp(dim=-1)
    added = add_sinks(attend(query, memory), lse, query, sinks)
    torch.testing.assert_close(added, attend(query, memory.with_first(sinks)), atol=1e-6, rtol=0)
    share, among = sink_share(query, lse, sinks.keys)
    weights = scores(query, memory.with_first(sinks).keys).softmax(dim=-1)[..., :2]
    torch.testing.assert_close(share, weights.sum(dim=-1))
    torch.testing.assert_close(among.sum(dim=-1), torch.ones_like(share))


def test_attention_of_the_newest_tokens_behind_a_short_and_a_long_past():
    query, memory, _ = heads(30)
    full = attend(query, memory)
    for newest in (1, 3, 10, 29):
        part = attend(query[:, :, -newest:], memory)
        torch.testing.assert_close(part, full[:, :, -newest:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("inter_episode", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_sink_mass_is_the_weight_of_the_sinks(mode, inter_episode):
    net = network(mode, 2, inter_episode)
    net.blocks = net.blocks[:1]  # inputs of the only layer are known here
    net.settings = TransformerSettings(WIDTH, 4, 1, 64, mode, 2, inter_episode)
    x, episode = sequences(2, 30)
    cache = net.new_cache(batch=2)
    with pytest.raises(ValueError, match="no step yet"):
        net.sink_mass(cache)
    net.extend(x, cache, episode)
    mass = net.sink_mass(cache)
    assert mass.shape == (1, 2, 4)
    if mode == "none":
        assert torch.equal(mass, torch.zeros_like(mass))
        return
    block = net.blocks[0]
    index = episode if inter_episode else torch.zeros_like(episode)
    query, *own = block.attention.project(block.norm_attention(x), rotation(index, 8))
    keys = KeysValues(*own).with_first(net.sinks()[0]).keys
    logits = (query[:, :, -1:] @ keys.transpose(-1, -2) / 8**0.5)[:, :, 0]
    if not inter_episode:
        hidden = torch.nn.functional.pad(episode != episode[:, -1:], (2, 0))
        logits = logits.masked_fill(hidden[:, None], float("-inf"))
    expected = logits.softmax(dim=-1)[..., :2].sum(dim=-1)
    torch.testing.assert_close(mass[0], expected.detach())


@pytest.mark.parametrize(
    ("mode", "learned"),
    [
        ("none", set()), ("k0v0", set()), ("kv0", {"sink_keys"}), ("k0v", {"sink_values"}),
        ("kv", {"sink_keys", "sink_values"}), ("token", {"sink_tokens"}),
    ],
)  # fmt: skip
def test_frozen_sinks_are_never_trained(mode, learned):
    net = EpisodicTransformer(TransformerSettings(WIDTH, 4, 2, 64, mode))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    x, episode = sequences(2, 20)
    for _ in range(2):
        net(x, episode).square().sum().backward()
        optimizer.step()
    moved = {n.split(".")[-1] for n, p in net.named_parameters() if "sink" in n and p.grad.any()}
    assert moved == learned
    for name, tensor in net.state_dict().items():
        if "sink" in name and name.split(".")[-1] not in learned:
            assert not tensor.any(), name


def test_token_sinks_do_not_depend_on_the_sequence():
    net = network("token", 3)
    x, episode = sequences(2, 20)
    cache = net.new_cache(batch=2)
    before = [cache.seen(layer).keys[:, :, :3].clone() for layer in range(2)]
    net.extend(x, cache, episode)
    for layer, held in enumerate(before):
        assert torch.equal(cache.seen(layer).keys[:, :, :3], held)


@pytest.mark.parametrize("mode", ["kv", "token"])
def test_weights_survive_being_stored_bit_for_bit(mode, tmp_path):
    net, other = network(mode, 2), network(mode, 2)
    for parameter in other.parameters():
        parameter.data.zero_()
    tensors = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    save_checkpoint(tmp_path / "net", {"mode": mode}, tensors, "card")
    loaded = load_checkpoint(tmp_path / "net")[1]
    other.load_state_dict({name: torch.from_numpy(value) for name, value in loaded.items()})
    x, episode = sequences(2, 30)
    assert torch.equal(net(x, episode), other(x, episode))


def test_rotation_keeps_products_of_equal_distance():
    draw = torch.Generator().manual_seed(4)
    qkv = torch.randn(1, 4, 3, 2, 16, dtype=torch.float64, generator=draw)
    qkv[0] = qkv[0, 0]
    query, keys, values = rotate(
        qkv, rotation(torch.tensor([[0, 3, 100_000, 100_003]]), 16, torch.float64)
    )[0].unbind(dim=1)
    near, far = ((query[i] * keys[i + 1]).sum() for i in (0, 2))
    torch.testing.assert_close(near, far)
    assert not torch.isclose(near, (query[0] * keys[0]).sum())
    assert torch.equal(values, qkv[0, :, 2])


def test_an_angle_turns_each_plane_of_two_dimensions():
    index, qkv = torch.tensor([[5]]), torch.randn(1, 1, 3, 1, 4, dtype=torch.float64)
    query = rotate(qkv, rotation(index, 4, torch.float64))[0, 0, 0, 0]
    plane = torch.view_as_complex(qkv[0, 0, 0, 0].view(2, 2).T.contiguous())
    angle = 5.0 * torch.tensor([1.0, 1e4**-0.5], dtype=torch.float64)
    expected = torch.view_as_real(plane * torch.polar(torch.ones_like(angle), angle))
    torch.testing.assert_close(query, expected.T.flatten())


def test_planes_of_neighbours_are_turned_as_those_of_halves():
    index, kind = torch.tensor([[0, 3, 70_000], [1, 1, 2]]), torch.float64
    qkv = torch.randn(2, 3, 3, 2, 8, dtype=kind, generator=torch.Generator().manual_seed(5))
    expected = rotate(qkv, rotation(index, 8, kind))[..., paired(8)]
    for part in (0, 1):
        found = turn_planes(qkv[:, :, part, :, paired(8)].flatten(2), turns(index, 2, 8, kind))
        torch.testing.assert_close(found, expected[:, :, part].flatten(2))


def test_an_episode_longer_than_the_table_is_refused():
    positions = EpisodePositions(25, 8)
    assert positions(torch.tensor([[0, 24]])).shape == (1, 2, 8)
    with pytest.raises(UserError, match="at most 25 steps .* saw step 26"):
        positions(torch.tensor([3, 25]))


@pytest.mark.parametrize(
    ("key", "value"), [("width", 30), ("heads", 0), ("sink_mode", "kv1"), ("sinks", 0)]
)
def test_settings_that_cannot_be_are_named(key, value):
    with pytest.raises(ValueError, match=f"^{key}: expected"):
        TransformerSettings(**{key: value})
