"""What there is to choose from in a launch. Only the standard library is imported here, as in
:mod:`embodied_rl.bringup.spec`."""

from __future__ import annotations

# World -> embodiment file, cameras and tasks; a test holds these tables against the simulator's own
# registry, which is not imported here because that would load MuJoCo to print a help text.
WORLD_EMBODIMENT = {
    "tabletop": "sim_worlds/tabletop/ur5e_2f85.yaml",
    "arena": "sim_worlds/arena/diff_drive.yaml",
    "reach": "sim_worlds/tabletop/ur5e_reach.yaml",
    "apartment": "sim_worlds/apartment/home_base.yaml",
}
CAMERAS = {
    "tabletop": ("fixed", "wrist"),
    "arena": ("overhead",),
    "reach": (),
    "apartment": ("front",),
}
# World -> its tasks that have a name; the first is the one that it takes by itself
TASKS = {
    "tabletop": ("replace_object", "count_pushes", "pick_place", "return_home"),
    "apartment": ("find_object",),
}
# World whose tasks are specifications in temporal logic -> the one that it takes by itself
DEFAULT_SPEC = {"arena": "patrol_two_goals", "reach": "arm_00"}
EXPERT = "expert"
# World -> the policy of a launch that names none
DEFAULT_POLICY = {"tabletop": EXPERT, "arena": "tgpo", "reach": "tgpo", "apartment": "relic"}
