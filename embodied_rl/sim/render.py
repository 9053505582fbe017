"""Off-screen rendering of MuJoCo scenes: colour, depth in metres, instance segmentation.

An OpenGL context belongs to one thread. It is made at the first image, and every later image must
come from that same thread. The context is opened here rather than by ``mujoco.Renderer``: that one
is chosen when ``mujoco`` is first imported, and where no GL library is installed the import itself
fails; here a simulation without images needs no GL at all.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from dataclasses import dataclass

import mujoco
import numpy as np

from embodied_rl.core.errors import UserError

GL_BACKENDS = ("egl", "osmesa", "glfw")
GL_PACKAGES = "apt-get install libegl1 libgl1 libgl1-mesa-dri (or libosmesa6, MUJOCO_GL=osmesa)"
MAX_SCENE_GEOMS = 1000


@dataclass(frozen=True)
class CameraModel:
    """Pinhole camera as ``sensor_msgs/CameraInfo`` has it: pixel centres at whole numbers."""

    name: str
    width: int
    height: int
    matrix: np.ndarray  # (3, 3) K, pixels


def camera_model(model: mujoco.MjModel, camera: str, width: int, height: int) -> CameraModel:
    """Intrinsics of a camera of the model for an image size."""
    half_angle = np.radians(model.camera(camera).fovy[0]) / 2
    focal = height / 2 / np.tan(half_angle)
    matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return CameraModel(camera, width, height, matrix)


def open_gl_context(width: int, height: int):
    """An off-screen GL context by ``MUJOCO_GL`` (``egl`` when unset).

    Raises:
        UserError: unknown backend, or its system library is missing; names the packages.
    """
    backend = os.environ.setdefault("MUJOCO_GL", "egl").lower()
    if backend not in GL_BACKENDS:
        raise UserError(f"MUJOCO_GL: expected one of {list(GL_BACKENDS)}, saw '{backend}'")
    if backend == "glfw" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("MUJOCO_GL=glfw needs a display, saw none (DISPLAY): export MUJOCO_GL=egl")
    try:
        if backend == "egl":
            from mujoco.egl import GLContext
        elif backend == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco.glfw import GLContext
        return GLContext(width, height)
    # PyOpenGL answers a missing library with AttributeError, TypeError or its own errors
    except Exception as error:
        detail = " ".join(str(error).split())[:160]
        raise UserError(
            f"rendering needs OpenGL ({backend}), which does not start here: {detail}; "
            f"install it with: {GL_PACKAGES}"
        ) from error


_OPEN_RENDERERS: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_OPEN_RENDERERS):
        renderer.close()


class SceneRenderer:
    """Draws cameras of one model. Shadows (but in pictures) and multisampling are off."""

    def __init__(self, model: mujoco.MjModel, instance_of_geom: np.ndarray):
        """Opens nothing yet.

        Args:
            model: the compiled model.
            instance_of_geom: ``(ngeom,)`` uint16 instance id of every geom, 0 for background.
        """
        self._model = model
        self._instance_of_geom = instance_of_geom
        self._gl = None
        self._context: mujoco.MjrContext | None = None
        self._thread = 0

    def _open(self) -> None:
        frame = self._model.vis.global_
        self._gl = open_gl_context(frame.offwidth, frame.offheight)
        self._gl.make_current()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        # far plane at 0 keeps 32-bit depth precise all the way
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene = mujoco.MjvScene(self._model, maxgeom=MAX_SCENE_GEOMS)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._options = mujoco.MjvOption()
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._thread = threading.get_ident()
        if not _OPEN_RENDERERS:
            # EGL ends its display at exit, after what was registered later: free contexts first
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        _OPEN_RENDERERS.add(self)

    def look(self, data: mujoco.MjData, camera: str) -> None:
        """Take in the state of ``data`` as ``camera`` sees it; the image calls then draw it.

        Raises:
            RuntimeError: called from another thread than the first image.
        """
        if self._context is None:
            self._open()
        elif threading.get_ident() != self._thread:
            raise RuntimeError(
                "this simulator's images were first drawn on another thread, and an OpenGL "
                "context belongs to one thread: read() and render() from that thread only"
            )
        self._gl.make_current()
        self._view.fixedcamid = self._model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._view, everything, self._scene
        )

    def rgb(self, width: int, height: int) -> np.ndarray:
        """Colour image ``(H, W, 3)`` uint8."""
        image = np.empty((height, width, 3), dtype=np.uint8)
        self._draw(width, height, image, None)
        return np.ascontiguousarray(image[::-1])

    def picture(self, width: int, height: int) -> np.ndarray:
        """Colour image ``(H, W, 3)`` for people: with shadows and smooth edges, and slow."""
        frame = self._model.vis.global_
        if 2 * width > frame.offwidth or 2 * height > frame.offheight:
            raise UserError(
                f"picture: at most {frame.offwidth // 2}x{frame.offheight // 2} pixels, "
                f"saw {width}x{height}"
            )
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = True
        fine = self.rgb(2 * width, 2 * height).reshape(height, 2, width, 2, 3)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        return fine.mean(axis=(1, 3)).round().astype(np.uint8)

    def depth(self, width: int, height: int) -> np.ndarray:
        """Distance along the optical axis ``(H, W)`` float32 in metres."""
        buffer = np.empty((height, width), dtype=np.float32)
        self._draw(width, height, None, buffer)
        extent = self._model.stat.extent
        near = self._model.vis.map.znear * extent
        far = self._model.vis.map.zfar * extent
        # inverse of the reversed projection: buffer 1 at the near plane, 0 at the far plane
        scaled = buffer[::-1].astype(np.float64)
        return (near * far / (near + scaled * (far - near))).astype(np.float32)

    def segmentation(self, width: int, height: int) -> np.ndarray:
        """Instance ids ``(H, W)`` uint16, 0 where there is nothing of the named instances."""
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        image = np.empty((height, width, 3), dtype=np.uint8)
        self._draw(width, height, image, None)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        # the colour of a pixel is the number of its scene geom plus one
        instance_of_colour = np.zeros(self._scene.ngeom + 1, dtype=np.uint16)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                instance_of_colour[geom.segid + 1] = self._instance_of_geom[geom.objid]
        wide = image[::-1].astype(np.uint32)
        return instance_of_colour[wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)]

    def _draw(
        self, width: int, height: int, colour: np.ndarray | None, depth: np.ndarray | None
    ) -> None:
        area = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(colour, depth, area, self._context)

    def close(self) -> None:
        """Free the GL context; the next image would open a new one."""
        if self._context is not None:
            self._context.free()
            self._gl.free()
            _OPEN_RENDERERS.discard(self)
        self._context = self._gl = None
