import torch
from diffusers.training_utils import EMAModel
from torch import nn

from embodied_rl.nn.ema import Ema


def test_average_follows_the_published_decay_and_can_be_restored():
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    expected = model.weight.detach().clone()
    ema = Ema(model, decay=0.9999, power=0.75)
    for n in range(5):
        with torch.no_grad():
            model.weight.add_(1.0)
        ema.step()
        # decay at update n: 1 - (1 + n)^-0.75, and the first update takes the weights as they are
        decay = 0.0 if n == 0 else min(1 - (1 + n) ** -0.75, 0.9999)
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.tensors()["weight"], expected)
    own = model.weight.detach().clone()
    with ema.applied():
        torch.testing.assert_close(model.weight.detach(), expected)
    torch.testing.assert_close(model.weight.detach(), own)
    other = Ema(model)
    other.restore(ema.tensors(), ema.count)
    assert other.count == ema.count == 5
    torch.testing.assert_close(other.tensors()["weight"], expected)


def test_equals_diffusers_to_the_bit():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[1].bias.requires_grad_(False)
    ours = Ema(model, decay=0.9, power=0.75)
    theirs = EMAModel(model.parameters(), decay=0.9, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    for _ in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ours.step()
        theirs.step(model.parameters())
        for mine, other in zip(ours.tensors().values(), theirs.shadow_params, strict=True):
            assert torch.equal(mine, other)
