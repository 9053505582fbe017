import pytest

# Two threads on matrices this small wait for each other, for minutes if the machine is busy.
torch = pytest.importorskip("torch")
torch.set_num_threads(1)
