"""Makes docs/space.png: ``python docs/make_space_picture.py`` (needs pyvista: pip install pyvista).

Two robots in space as a viewer sees them, from what the simulator tells viewers and nothing else:
the robot from its URDF, placed by the transforms; surroundings from the scene's primitives; the
lidar's returns in the frame of the lidar; each camera as a pyramid with its image, from its
intrinsics and its frame, and its depth image as points in space.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.frames import Transform
from embodied_rl.core.window import Sample
from embodied_rl.sim.mujoco_sim import MujocoSimulator
from embodied_rl.sim.registry import make_simulator
from embodied_rl.sim.shapes import BOX, CYLINDER, SHEET_M, Shape, surroundings
from embodied_rl.sim.urdf import robot_description

try:
    import pyvista
except ImportError as error:
    raise SystemExit("docs/make_space_picture.py needs pyvista: pip install pyvista") from error

PANEL, COLOURS = (700, 560), 256
AXES = ("#d55e00", "#009e73", "#0072b2")  # x, y, z
CAMERA, RETURNS = "#cc79a7", "#d55e00"


@dataclass(frozen=True)
class View:
    """One panel: a world with a camera for people."""

    world: str
    task: str
    seed: int
    trial: int
    cameras: tuple[str, ...]
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    axis_m: float  # length of the axes drawn at a frame
    pyramid_m: float  # depth of a camera's
    frames: tuple[str, ...]  # whose axes are drawn
    dot_px: float


VIEWS = (
    View("tabletop", "replace_object", 3, 0, ("fixed", "wrist"), (1.6, -2.1, 1.3),
         (0.75, 0.0, 0.3), 0.13, 0.25, ("base_link", "tool", "fixed_optical_frame"), 3.0),
    View("apartment", "find_object", 4, 3, ("front",), (9.3, 0.9, 4.0), (4.7, 1.95, 0.0),
         0.4, 0.55, ("odom", "base_link", "front_optical_frame"), 4.0),
)  # fmt: skip


def placed(edges: Iterable[Transform], root: str) -> dict[str, np.ndarray]:
    """Every frame ``(4, 4)`` in the root."""
    parents = {edge.child: edge for edge in edges}
    found = {root: np.eye(4)}

    def place(name: str) -> np.ndarray:
        if name not in found:
            edge = parents[name]
            found[name] = place(edge.parent) @ matrix(edge.pose.rotation, edge.pose.translation)
        return found[name]

    for name in parents:
        place(name)
    return found


def matrix(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = rotation, translation
    return found


def solid(kind: str, size: tuple[float, ...]) -> pyvista.PolyData:
    if kind == BOX:
        return pyvista.Cube(x_length=size[0], y_length=size[1], z_length=size[2])
    if kind == CYLINDER:
        return pyvista.Cylinder(direction=(0, 0, 1), radius=size[0], height=size[1], resolution=48)
    return pyvista.Sphere(radius=size[0], theta_resolution=32, phi_resolution=32)


def draw_robot(plot: pyvista.Plotter, urdf: str, frames: Mapping[str, np.ndarray]) -> None:
    """The visuals of a robot description, each link where the transforms say."""
    robot = ElementTree.fromstring(urdf)
    colours = {
        material.get("name"): [float(v) for v in material.find("color").get("rgba").split()]
        for material in robot.findall("material")
    }
    for link in robot.findall("link"):
        for visual in link.findall("visual"):
            part, shape = visual.find("origin"), visual.find("geometry")[0]
            xyz, rpy = ([float(v) for v in part.get(key).split()] for key in ("xyz", "rpy"))
            pose = matrix(Rotation.from_euler("xyz", rpy).as_matrix(), xyz)
            keys = {"box": ("size",), "cylinder": ("radius", "length"), "sphere": ("radius",)}
            size = tuple(float(v) for key in keys[shape.tag] for v in shape.get(key).split())
            mesh = solid(shape.tag, size).transform(frames[link.get("name")] @ pose, inplace=False)
            red, green, blue, alpha = colours[visual.find("material").get("name")]
            plot.add_mesh(mesh, color=(red, green, blue), opacity=alpha, smooth_shading=False)


def draw_scene(plot: pyvista.Plotter, simulator: MujocoSimulator) -> None:
    """Floor, furniture and objects; walls are glass, so that what lies on them is seen."""
    robot = simulator.space.body_ids
    for moving in (False, True):
        for name, shape in surroundings(simulator.model, simulator.data, robot, moving):
            if shape.pose.translation[2] < -0.5:
                continue  # put away below the floor
            plot.add_mesh(
                solid(shape.kind, shape.size).transform(
                    matrix(shape.pose.rotation, shape.pose.translation), inplace=False
                ),
                color=shape.rgba[:3],
                opacity=_opacity(name, shape),
            )


def _opacity(name: str, shape: Shape) -> float:
    tall = shape.kind == BOX and shape.size[2] > 1.0
    cap = name == "world" and shape.pose.translation[2] > 1.1
    if tall or cap or (name.startswith("wall") and shape.size[2] > SHEET_M):
        return 0.13
    return shape.rgba[3]


def draw_axes(plot: pyvista.Plotter, pose: np.ndarray, length_m: float) -> None:
    for axis, colour in zip(pose[:3, :3].T, AXES, strict=True):
        arrow = pyvista.Arrow(
            start=pose[:3, 3], direction=axis, scale=length_m, shaft_radius=0.03, tip_radius=0.08
        )
        plot.add_mesh(arrow, color=colour)


def draw_camera(
    plot: pyvista.Plotter, view: View, simulator: MujocoSimulator, key: str,
    samples: Mapping[str, Sample], frames: Mapping[str, np.ndarray],
) -> None:  # fmt: skip
    """A pyramid with the image at its base, and the depth image as points."""
    pose, camera = frames[simulator.space.optical_frame(key)], simulator.intrinsics(key)
    width, height = camera.width, camera.height
    edges = [(-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5)]
    ends = in_space(pose, camera.matrix, np.array(edges).T, np.full(4, view.pyramid_m))
    for i in range(4):
        for one, other in ((pose[:3, 3], ends[i]), (ends[i], ends[(i + 1) % 4])):
            plot.add_mesh(pyvista.Line(one, other), color=CAMERA, line_width=5)
    screen = pyvista.StructuredGrid()
    screen.points = ends[[0, 1, 3, 2]]
    screen.dimensions = (2, 2, 1)
    screen.active_texture_coordinates = np.array([[0, 1], [1, 1], [0, 0], [1, 0]], dtype=float)
    texture = pyvista.Texture(np.ascontiguousarray(samples[key].value))
    plot.add_mesh(screen, texture=texture, lighting=False, opacity=0.9)
    deep = f"{key}_depth"
    if deep in samples:
        depth = samples[deep].value
        rows, columns = np.nonzero(depth < 6.0)
        eye, model = frames[simulator.space.optical_frame(deep)], simulator.intrinsics(deep)
        pixels = np.stack([columns, rows]).astype(float)
        points = in_space(eye, model.matrix, pixels, depth[rows, columns])
        plot.add_points(points, color=AXES[2], point_size=view.dot_px * 0.7, opacity=0.55)


def in_space(
    pose: np.ndarray, camera: np.ndarray, pixels: np.ndarray, depth_m: np.ndarray
) -> np.ndarray:
    """Points ``(N, 3)`` behind pixels (columns, rows) ``(2, N)`` at depths ``(N,)``."""
    rays = np.linalg.inv(camera) @ np.vstack([pixels, np.ones(pixels.shape[1])])
    return (pose[:3, :3] @ (rays * depth_m)).T + pose[:3, 3]


def draw_scan(
    plot: pyvista.Plotter, view: View, simulator: MujocoSimulator, key: str,
    readings: np.ndarray, frames: Mapping[str, np.ndarray],
) -> None:  # fmt: skip
    stream = simulator.embodiment.streams[key]
    scan, pose = stream.scan, frames[simulator.space.frame(stream)]
    angles, ranges = scan.angles_rad, scan.ranges(readings)
    met = np.isfinite(ranges)
    flat = np.stack([np.cos(angles), np.sin(angles), np.zeros(len(angles))])[:, met] * ranges[met]
    points = (pose[:3, :3] @ flat).T + pose[:3, 3]
    plot.add_points(
        points, color=RETURNS, point_size=2.6 * view.dot_px, render_points_as_spheres=True
    )
    for point in points[::6]:
        plot.add_mesh(pyvista.Line(pose[:3, 3], point), color=RETURNS, line_width=2, opacity=0.4)


def observe(view: View) -> tuple[View, MujocoSimulator, dict[str, Sample]]:
    """The world of a view and what its sensors read. Its OpenGL is closed again: the one of VTK
    would end it, both being of one EGL display."""
    simulator = make_simulator(view.world, view.task, cameras=view.cameras)
    simulator.reset(view.seed, view.trial)
    samples = simulator.read()
    simulator.close()
    return view, simulator, samples


def panel(view: View, simulator: MujocoSimulator, samples: Mapping[str, Sample]) -> np.ndarray:
    """``(H, W, 3)`` uint8."""
    space = simulator.space
    edges = [*space.fixed, *space.joints(simulator.data)]
    base = space.base(simulator.data, samples)
    frames = placed([*edges, base] if base else edges, space.root)
    plot = pyvista.Plotter(off_screen=True, window_size=PANEL)
    plot.set_background("#eef0f2")
    plot.enable_anti_aliasing("ssaa")
    draw_scene(plot, simulator)
    draw_robot(plot, robot_description(space), frames)
    for key, stream in simulator.embodiment.streams.items():
        if key in samples and stream.encoding == "rgb8":
            draw_camera(plot, view, simulator, key, samples, frames)
        if key in samples and stream.scan is not None:
            draw_scan(plot, view, simulator, key, samples[key].value, frames)
    for name in view.frames:
        draw_axes(plot, frames[name], view.axis_m)
        # beside the axes, where no other line runs
        place = frames[name][:3, 3] + [
            0.0,
            0.0,
            (0.9 if "optical" in name else 0.3) * view.axis_m,
        ]
        plot.add_point_labels(
            [place], [name], font_size=15, shape="rounded_rect", shape_color="white",
            shape_opacity=0.75, text_color="#222222", always_visible=True, show_points=False,
            margin=3,
        )  # fmt: skip
    plot.camera_position = [view.eye, view.target, (0.0, 0.0, 1.0)]
    image = plot.screenshot(return_img=True)
    plot.close()
    return np.asarray(image)[..., :3]


def main() -> int:
    worlds = [observe(view) for view in VIEWS]
    sheet = Image.fromarray(np.concatenate([panel(*world) for world in worlds], axis=1))
    with atomic_write(Path(__file__).parent / "space.png") as path:
        sheet.quantize(COLOURS).save(path, format="PNG", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
