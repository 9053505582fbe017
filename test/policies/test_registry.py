import pytest

from embodied_rl.core.errors import UserError
from embodied_rl.policies import registry
from embodied_rl.sim.registry import world_embodiment


@pytest.fixture(scope="module")
def tabletop():
    return world_embodiment("tabletop")


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "models_folders", lambda: [tmp_path])
    for name in ("ptp_one", "ptp_two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("policy: ptp\ntask: slide\n")
    return tmp_path


def test_expert(tabletop):
    policy = registry.load_policy("expert", tabletop, "replace_object")
    assert policy.spec.embodiment == "ur5e_2f85"
    with pytest.raises(UserError, match="pick_place, replace_object"):
        registry.load_policy("expert", tabletop)
    with pytest.raises(UserError, match="valid: count_pushes, find_object, pick_place"):
        registry.load_policy("expert", tabletop, "juggle")


def test_names_and_folders(models, tmp_path):
    assert registry.find_checkpoint("ptp_one") == models / "ptp_one"
    assert registry.find_checkpoint(str(models / "ptp_two")) == models / "ptp_two"
    assert registry.model_task("ptp_one") == "slide" and registry.model_task("expert") is None
    with pytest.raises(UserError, match="did you mean 'ptp_one'.*expert, ptp_one, ptp_two"):
        registry.find_checkpoint("ptp_onne")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="config.yaml: not there"):
        registry.find_checkpoint(str(tmp_path / "empty"))


def test_unknown_policy_in_a_checkpoint(models, tabletop):
    (models / "ptp_one" / "config.yaml").write_text("policy: magic\n")
    with pytest.raises(UserError, match="expected one of ptp, relic, tgpo, saw 'magic'"):
        registry.load_policy("ptp_one", tabletop)


def test_a_context_is_only_for_a_policy_that_keeps_one(models, tabletop):
    for name in ("expert", "ptp_one"):
        with pytest.raises(UserError, match=f"context_steps: expected none for '{name}'.*saw 64"):
            registry.load_policy(name, tabletop, "replace_object", context_steps=64)
