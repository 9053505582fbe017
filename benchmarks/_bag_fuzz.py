"""Coverage-guided fuzzing of the parsers of ``bags/`` with ``atheris``, a target in a process.

    python _bag_fuzz.py TARGET FOLDER -max_total_time=60

The seeds are the sound files of ``_fault_bags.py``. Any exception but a UserError ends the run and
leaves the input in FOLDER, as does one that takes longer than ten seconds or more than 1 GB.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["embodied_rl.bags"]):
    from embodied_rl.bags import metadata
    from embodied_rl.bags.messages import Decoder
    from embodied_rl.bags.read import Bag
    from embodied_rl.bags.storage import TopicInfo
    from embodied_rl.core.errors import UserError

import _fault_bags


def main(argv: list[str]) -> None:
    name, folder = argv[1], Path(argv[2])
    seeds = folder / "seeds"
    seeds.mkdir(parents=True, exist_ok=True)
    target = TARGETS[name](folder, seeds)
    options = [f"-artifact_prefix={folder}/", "-timeout=10", "-rss_limit_mb=1024", "-max_len=70000"]
    atheris.Setup([argv[0], *options, *argv[3:], str(seeds)], target)
    atheris.Fuzz()


def _bag(prefix: str) -> Callable[[Path, Path], Callable[[bytes], None]]:
    """A target that takes its input for a data file of this storage."""

    def make(folder: Path, seeds: Path) -> Callable[[bytes], None]:
        for sample in _fault_bags.samples():
            if sample.name.startswith(prefix) and sample.packed is None:
                (seeds / sample.name.replace(" ", "_")).write_bytes(sample.data)
        path = folder / f"bag.{'mcap' if prefix == 'mcap' else 'db3'}"

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with Bag.open(path) as bag:
                for message in bag.messages():
                    bytes(message.data)
                bag.report.all_lines()

        return read

    return make


def _yaml(folder: Path, seeds: Path) -> Callable[[bytes], None]:
    text = metadata.Metadata("mcap", ("a.mcap",), 0, 1, (metadata.TopicRow("/a", "x/msg/A", 1),))
    (seeds / "metadata").write_text(text.text())

    def parse(data: bytes) -> None:
        try:
            metadata.parse(data.decode("utf-8", "replace"), folder)
        except ValueError as error:
            assert "\n" not in str(error)

    return parse


def _definition(folder: Path, seeds: Path) -> Callable[[bytes], None]:
    (seeds / "msg").write_text(f"x/B[3] b\nuint8[] c\n{'=' * 80}\nMSG: x/B\nstring a\nfloat64 d")

    def decode(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        for encoding in ("ros2msg", "ros2idl"):
            topic = TopicInfo("/a", "x/msg/A", 1, encoding, text)
            try:
                Decoder([topic])("/a", "x/msg/A", b"\0\1\0\0" + data)
            except UserError as error:
                assert "\n" not in str(error)

    return decode


TARGETS = {"mcap": _bag("mcap"), "sqlite": _bag("sqlite"), "yaml": _yaml, "definition": _definition}

if __name__ == "__main__":
    main(sys.argv)
