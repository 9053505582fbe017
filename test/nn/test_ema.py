import torch
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
