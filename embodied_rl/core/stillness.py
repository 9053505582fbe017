"""Whether a robot that was told to stand still does, by its own sensors."""

from __future__ import annotations

from collections import deque

import numpy as np

from embodied_rl.core.embodiment import Embodiment

WINDOW_S = 0.25  # joints that have not moved for so long stand
JOINT_SHARE = 0.05  # of the fastest motion within the window: noise of the sensor
BASE_SHARE = 0.05  # of the range of a velocity
PATIENCE_S = 1.0  # beyond what a base needs to brake, before a moving robot is an alarm


class Stillness:
    """Watches the measured state from the moment on that a hold or a stop is in force."""

    def __init__(self, embodiment: Embodiment):
        self._names = embodiment.action_names
        self._velocities = embodiment.velocities
        lower, upper, rate = embodiment.limits()
        self._slow = np.where(
            self._velocities, BASE_SHARE * (upper - lower), JOINT_SHARE * rate * WINDOW_S
        )
        fastest = np.maximum(np.abs(lower), np.abs(upper)) / rate
        braking = np.where(self._velocities, fastest, 0.0)
        self._patience_s = PATIENCE_S + float(braking.max(initial=0.0))
        self._seen: deque[tuple[float, np.ndarray]] = deque(maxlen=4096)
        self.begin(0.0)

    def begin(self, now_s: float) -> None:
        """A hold comes into force now, steady clock."""
        self._begun_s, self.confirmed, self._moving = now_s, False, ""
        self._seen.clear()

    def saw(self, now_s: float, measured: np.ndarray) -> None:
        """Take the measured positions and velocities ``(A,)``."""
        self._seen.append((now_s, measured))
        while self._seen[0][0] < now_s - WINDOW_S and self._seen[1][0] <= now_s - WINDOW_S:
            self._seen.popleft()
        values = np.array([value for _, value in self._seen])
        span = values.max(axis=0) - values.min(axis=0)
        motion = np.where(self._velocities, np.abs(measured), span)
        worst = int(np.argmax(motion / self._slow))
        self._moving = self._names[worst] if motion[worst] > self._slow[worst] else ""
        watched = now_s - self._seen[0][0] >= WINDOW_S
        self.confirmed = not self._moving and (watched or bool(self._velocities.all()))

    def alarm(self, now_s: float) -> str:
        """What still moves although the robot should long stand, or nothing."""
        if not self._moving or now_s - self._begun_s < self._patience_s:
            return ""
        return f"{self._moving} goes on moving although the robot was told to stand"
