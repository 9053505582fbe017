"""One robot on one map in plain Python, what the batched grid is checked against."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction

WAYS = [(1, 0), (0, 1), (-1, 0), (0, -1)]
Pose = tuple[int, int, int]  # x, y, heading


def rotated(ahead: int, left: int, heading: int) -> tuple[int, int]:
    """An offset in the robot's frame as an offset on the map, by the complex plane."""
    turned = complex(ahead, left) * 1j**heading
    return round(turned.real), round(turned.imag)


def toward_axis(share: Fraction) -> int:
    """The nearest whole number; of two equally near ones that nearer to 0."""
    size = abs(share)
    whole = math.floor(size)
    rounded = whole + 1 if size - whole > Fraction(1, 2) else whole
    return rounded if share >= 0 else -rounded


def sees(walls, pose: Pose, ahead: int, left: int) -> bool:
    """Whether no wall lies strictly between the robot and a cell."""
    x, y, heading = pose
    length = max(abs(ahead), abs(left))
    for k in range(1, length):
        part = (toward_axis(Fraction(ahead * k, length)), toward_axis(Fraction(left * k, length)))
        dx, dy = rotated(*part, heading)
        inside = 0 <= y + dy < len(walls) and 0 <= x + dx < len(walls[0])
        if not inside or walls[y + dy][x + dx]:
            return False
    return True


def moved(walls, pose: Pose, action: int) -> Pose:
    x, y, heading = pose
    if action == 1:
        return x, y, (heading + 1) % 4
    if action == 2:
        return x, y, (heading + 3) % 4
    dx, dy = WAYS[heading]
    return pose if action == 3 or walls[y + dy][x + dx] else (x + dx, y + dy, heading)


def succeeds(walls, pose: Pose, target: tuple[int, int]) -> bool:
    """Whether the target is seen within a Manhattan distance of two."""
    for ahead in range(3):
        for left in range(-2, 3):
            dx, dy = rotated(ahead, left, pose[2])
            if ahead + abs(left) <= 2 and (pose[0] + dx, pose[1] + dy) == target:
                return sees(walls, pose, ahead, left)
    return False


def distances(walls, target: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Cells to the target, by breadth-first search from it."""
    found, queue = {target: 0}, deque([target])
    while queue:
        x, y = queue.popleft()
        for dx, dy in WAYS:
            cell = (x + dx, y + dy)
            if not walls[cell[1]][cell[0]] and cell not in found:
                found[cell] = found[x, y] + 1
                queue.append(cell)
    return found


def fewest_actions(walls, pose: Pose, target: tuple[int, int]) -> int:
    """Moves and turns to a pose from which stopping succeeds, by search from the robot."""
    found, queue = {pose: 0}, deque([pose])
    while queue:
        here = queue.popleft()
        if succeeds(walls, here, target):
            return found[here]
        for action in range(3):
            there = moved(walls, here, action)
            if there not in found:
                found[there] = found[here] + 1
                queue.append(there)
    raise AssertionError("the target cannot be reached")


def crop(walls, objects, pose: Pose, half_view: float | None = None) -> list[int]:
    """Codes of the 7 x 7 cells ahead: 0 free, 1 wall, 2 unseen, 2 + the entry of ``objects``, which
    show within ``half_view`` (rad) of straight ahead only, if that is given."""
    codes = []
    for ahead in range(7):
        for left in range(3, -4, -1):
            dx, dy = rotated(ahead, left, pose[2])
            x, y = pose[0] + dx, pose[1] + dy
            if not sees(walls, pose, ahead, left):
                codes.append(2)
            elif walls[y][x]:
                codes.append(1)
            else:
                aside = math.atan2(abs(left), ahead) if ahead else math.pi
                shown = half_view is None or aside <= half_view + 1e-9
                codes.append(2 + objects[y][x] if objects[y][x] and shown else 0)
    return codes
