import pytest

torch = pytest.importorskip("torch")

from ptp_cases import make_config, make_embodiment, make_recordings  # noqa: E402

# Two threads on matrices this small wait for each other, for minutes if the machine is busy.
torch.set_num_threads(1)

embodiment = pytest.fixture(make_embodiment)
config = pytest.fixture(make_config)
recordings = pytest.fixture(make_recordings)
