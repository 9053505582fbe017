"""Asks in a few milliseconds whether off-screen OpenGL works here, before any long work starts.

Standard library only, so that the set-up can run it by path with a bare interpreter::

    python3 embodied_rl/cli/gl_probe.py      # exit 0, or one line on stderr and exit 1

The probe goes the way of MuJoCo's EGL backend (device, display, configuration, context) by ctypes.
"""

from __future__ import annotations

import ctypes
import os
import sys

PACKAGES = "libegl1 libopengl0 libgl1-mesa-dri"
ADVICE = f"sudo apt install {PACKAGES}"

_PLATFORM_DEVICE = 0x313F
_OPENGL_API = 0x30A2
_NONE = 0x3038
# Pbuffer surface, desktop GL, 8-bit colour, 24-bit depth: what mujoco.egl asks for.
_CONFIG = (0x3033, 0x1, 0x3040, 0x8, 0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3025, 24, _NONE)


def missing_gl() -> str | None:
    """Returns why off-screen GL does not work and what to install, or None when it works."""
    backend = os.environ.get("MUJOCO_GL", "egl").lower()
    if backend == "osmesa":
        found = any(_load(name) for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"))
        return None if found else "libOSMesa is not installed: sudo apt install libosmesa6"
    if backend in ("glfw", "glx"):  # the user's own choice, of a window system
        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            return None
        return f"MUJOCO_GL={backend} needs a display, and DISPLAY is not set: export MUJOCO_GL=egl"
    if backend in ("off", "disable", "disabled", "false", "0"):
        return f"MUJOCO_GL={backend} switches rendering off: export MUJOCO_GL=egl"
    if backend != "egl":
        return f"MUJOCO_GL={backend[:40]!r}: expected egl, osmesa or glfw: export MUJOCO_GL=egl"
    reason = _egl_reason()
    return f"off-screen OpenGL does not work ({reason}): {ADVICE}" if reason else None


def _load(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _egl_reason() -> str | None:
    """Returns the first step of EGL's way to a context that fails, or None."""
    egl = _load("libEGL.so.1")
    if egl is None:
        return "libEGL.so.1 is not installed"
    if _load("libOpenGL.so.0") is None and _load("libGL.so.1") is None:
        return "libOpenGL.so.0 is not installed"
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query_address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_address or not display_address:
        return "the EGL library has no device platform"
    query = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int)
    )(query_address)
    get_display = ctypes.CFUNCTYPE(
        ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)
    )(display_address)
    devices, count = (ctypes.c_void_p * 16)(), ctypes.c_int(0)
    if not query(16, devices, ctypes.byref(count)) or count.value == 0:
        return "no EGL driver is installed"
    for device in devices[: count.value]:
        display = get_display(_PLATFORM_DEVICE, device, None)
        if display and _makes_context(egl, display):
            return None
    return "no EGL driver gives a desktop OpenGL context"


def _makes_context(egl: ctypes.CDLL, display: int) -> bool:
    """True if `display` initialises and gives a desktop GL context for an off-screen surface."""
    handle = ctypes.c_void_p(display)
    if not egl.eglInitialize(handle, None, None):
        return False
    try:
        config, count = ctypes.c_void_p(), ctypes.c_int(0)
        wanted = (ctypes.c_int * len(_CONFIG))(*_CONFIG)
        egl.eglChooseConfig(handle, wanted, ctypes.byref(config), 1, ctypes.byref(count))
        if count.value < 1 or not egl.eglBindAPI(_OPENGL_API):
            return False
        egl.eglCreateContext.restype = ctypes.c_void_p
        context = egl.eglCreateContext(handle, config, None, None)
        if not context:
            return False
        egl.eglDestroyContext(handle, ctypes.c_void_p(context))
        return True
    finally:
        egl.eglTerminate(handle)


def main() -> int:
    """Prints the one line if GL is missing; returns 0 when it works and 1 when not."""
    os.environ.setdefault("EGL_LOG_LEVEL", "fatal")  # Mesa's own warnings would bury the line
    reason = missing_gl()
    if reason:
        print(f"error: {reason}", file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
