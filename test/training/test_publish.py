import pytest

from embodied_rl.core.errors import UserError
from embodied_rl.training.publish import MEASURED, command_line, record_measurement


def test_measurement_replaces_its_section_only(tmp_path):
    card = tmp_path / "CARD.md"
    card.write_text(f"# m\n\n{MEASURED}\n\nNot evaluated yet.\n\n## License\n\nx\n")
    record_measurement(tmp_path, r"0.95 \1 of 200")
    record_measurement(tmp_path, "0.96 of 200")
    text = card.read_text()
    assert text == f"# m\n\n{MEASURED}\n\n0.96 of 200\n\n## License\n\nx\n"


def test_measurement_is_added_where_there_is_none(tmp_path):
    (tmp_path / "CARD.md").write_text("# m\n")
    record_measurement(tmp_path, "0.5")
    assert (tmp_path / "CARD.md").read_text() == f"# m\n\n{MEASURED}\n\n0.5\n"


def test_missing_card(tmp_path):
    with pytest.raises(UserError, match="CARD.md"):
        record_measurement(tmp_path, "0.5")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/somewhere/bin/embodied_rl", "train", "ptp"], "embodied_rl train ptp"),
        (["/src/embodied_rl/cli/main.py", "train", "my bags"], "embodied_rl train 'my bags'"),
        (["-c", "train"], "embodied_rl train"),
    ],
)
def test_a_card_names_no_place_of_the_machine_it_was_trained_on(monkeypatch, argv, expected):
    monkeypatch.setattr("sys.argv", argv)
    assert command_line() == expected
