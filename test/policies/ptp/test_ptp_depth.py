"""A policy whose cameras are a depth and a grey one: trained, saved, run on rows with holes."""

from dataclasses import replace

import numpy as np
import pytest
from ptp_image_cases import CONFIG, RUN, TEXT, make_image_recordings

from embodied_rl.core.embodiment import Embodiment
from embodied_rl.core.errors import UserError
from embodied_rl.core.policy import EpisodeInfo
from embodied_rl.core.window import Observation
from embodied_rl.nn.vision import ImageSettings
from embodied_rl.policies.ptp.runtime import load_ptp
from embodied_rl.policies.ptp.train import train_ptp

ROBOT = Embodiment.parse(
    TEXT.replace(
        "encoding: rgb8, shape: [24, 24, 3]", "encoding: 32FC1, shape: [24, 24]", 1
    ).replace("encoding: rgb8, shape: [24, 24, 3]", "encoding: mono8, shape: [24, 24]", 1)
)
DEPTH = ImageSettings(crop=20, keypoints=8, features=6, depth_m=2.0)
GREY = replace(DEPTH, depth_m=0.0)
RUN_ = replace(RUN, model=replace(CONFIG, encoders={"left": DEPTH, "right": GREY}))


def recordings():
    found = make_image_recordings()
    for recording in found:
        bright = recording.values["left"][..., 0].astype(np.float32)
        recording.values["left"] = np.where(bright > 100, np.float32(0.5), np.float32(np.nan))
        recording.values["right"] = np.ascontiguousarray(recording.values["right"][..., 0])
    return found


def train(folder, run):
    return train_ptp(run, recordings(), ROBOT, out=folder / "out", work=folder / "work",
                     source="test", device="cpu", quiet=True)  # fmt: skip


def test_depth_and_grey_are_trained_on_and_run(tmp_path):
    assert train(tmp_path, RUN_).finished
    policy = load_ptp(tmp_path / "out", ROBOT, device="cpu")
    assert policy.model.config.encoders["left"].depth_m == 2.0
    policy.reset(EpisodeInfo(0, 0, "watch", "", 0))
    for tick in range(9):
        values = {k: v[tick] for k, v in recordings()[0].values.items()}
        stamp = tick * ROBOT.period_ns
        policy.observe(Observation(stamp, values, dict.fromkeys(values, True)))
    assert np.all(np.isfinite(policy.act().values))


def test_a_camera_of_another_kind_than_its_settings_is_refused(tmp_path):
    for key, settings, said in [
        ("left", GREY, "encoders.left.depth_m: expected the farthest distance in metres"),
        ("right", DEPTH, "encoders.right.depth_m: expected 0 for a stream of mono8, saw 2"),
    ]:
        encoders = {**RUN_.model.encoders, key: settings}
        with pytest.raises(UserError, match=said):
            train(tmp_path, replace(RUN_, model=replace(RUN_.model, encoders=encoders)))
