from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

from embodied_rl.core.errors import UserError
from embodied_rl.policies import registry
from embodied_rl.policies.method import (
    Method,
    Options,
    given_options,
    parse_options,
    read_options,
)
from embodied_rl.policies.ptp.method import PtpOptions
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
    assert registry.find_model("ptp_one").task == "slide"
    assert registry.find_model("expert").folder is None
    with pytest.raises(UserError, match="did you mean 'ptp_one'.*expert, ptp_one, ptp_two"):
        registry.find_checkpoint("ptp_onne")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="config.yaml: not there"):
        registry.find_checkpoint(str(tmp_path / "empty"))


def test_unknown_policy_in_a_checkpoint(models, tabletop):
    (models / "ptp_one" / "config.yaml").write_text("policy: magic\n")
    with pytest.raises(UserError, match="expected one of ptp, relic, tgpo, saw 'magic'"):
        registry.load_policy("ptp_one", tabletop)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("expert", {"samples": 4}, "policy 'expert': expected no options, saw 'samples'"),
        ("ptp_one", {"context_steps": 64}, "expected options among device, samples, saw 'context"),
        ("ptp_one", {"sample": 4}, r"saw 'sample' \(did you mean 'samples'\?\)"),
        ("ptp_one", {"samples": "4"}, "samples: expected a whole number, saw '4'"),
        ("ptp_one", {"samples": True}, "samples: expected a whole number, saw True"),
        ("ptp_one", {"samples": 0}, "samples: expected at least 1, saw 0"),
        ("ptp_one", {"device": 3}, "device: expected text, saw 3"),
    ],
)
def test_options_are_those_of_the_method(models, tabletop, name, options, message):
    with pytest.raises(UserError, match=message):
        registry.load_policy(name, tabletop, "replace_object", **options)


def test_methods_are_found_by_folder_and_by_entry_point(monkeypatch, tabletop, models):
    assert list(registry.methods()) == ["expert", "ptp", "relic", "tgpo"]
    own = Method("own", "of another package", lambda folder, setting, options: (folder, options))
    registry.methods.cache_clear()
    announced = [SimpleNamespace(name="own", value="own:METHOD", load=lambda: own)]
    monkeypatch.setattr(registry, "entry_points", lambda group: announced)
    (models / "ptp_one" / "config.yaml").write_text("policy: own\n")
    assert registry.find_model("ptp_one").method is own
    assert registry.load_policy("ptp_one", tabletop) == (models / "ptp_one", Options())
    for wrong, message in (
        (3, "expected a Method of .*, saw int"),
        (replace(own, name="ptp"), "two"),
    ):
        registry.methods.cache_clear()
        announced[0].load = lambda wrong=wrong: wrong
        with pytest.raises(UserError, match=message):
            registry.methods()
    registry.methods.cache_clear()


def test_options_survive_the_way_to_a_node():
    options = PtpOptions(samples=4)
    assert given_options(options) == {"samples": 4}
    text = yaml.safe_dump(given_options(options))
    assert read_options(PtpOptions, parse_options(text, "x"), "x") == options
    assert parse_options("", "x") == {}
    with pytest.raises(UserError, match="x: expected a mapping such as .*, saw 'cuda'"):
        parse_options("cuda", "x")
