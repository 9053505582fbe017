"""``embodied_rl <verb> ...``: finds the verb's file, runs it, turns errors into one line.

Only the verb that is asked for is imported, so that ``embodied_rl --help`` costs no torch, no ROS.
Every verb is a module of this package with ``main(argv) -> int``.
"""

from __future__ import annotations

import importlib
import sys

from embodied_rl import __version__
from embodied_rl.cli import UsageError
from embodied_rl.core.errors import UserError
from embodied_rl.core.terminal import accept_any_encoding

DONE, FAILED, BAD_USAGE = 0, 1, 2

# verb -> what it does, one example
VERBS = {
    "launch": (
        "start a ROS graph: sim, robot, record or stand_in",
        "embodied_rl launch sim policy:=ptp_replace_object episodes:=3",
    ),
    "record": (
        "begin, end or discard a bag of the running recorder; by keys",
        "embodied_rl record keys",
    ),
    "stop": ("emergency stop of the running graph; --release ends it", "embodied_rl stop"),
    "status": (
        "what the nodes of a running graph report: rates, refusals, why it holds",
        "embodied_rl status",
    ),
    "train": (
        "train a policy from recorded bags or in simulation; resumable",
        "embodied_rl train ptp --bags runs/bags --out models/my_ptp",
    ),
    "eval": (
        "success rate of a model, with its interval",
        "embodied_rl eval ptp_replace_object --episodes 200 --seed 0",
    ),
    "bags": (
        "what is in a bag, what is wrong with it, dataset cache",
        "embodied_rl bags info runs/bags/episode_000000",
    ),
    "stl": (
        "signal temporal logic: explain a formula, check a recording",
        'embodied_rl stl explain "F[0,16] A and G[0,20] not C"',
    ),
    "bench": ("run a benchmark and hold its targets", "embodied_rl bench transport"),
    "doctor": ("what works on this machine, and what to do about the rest", "embodied_rl doctor"),
}


def usage() -> str:
    """Returns the text of ``embodied_rl --help``."""
    lines = ["usage: embodied_rl <verb> [arguments]", "", "verbs:"]
    lines += [f"  {verb:<8}{summary}" for verb, (summary, _) in VERBS.items()]
    lines += ["", "examples:"]
    lines += [f"  {example}" for _, example in VERBS.values()]
    lines += [
        "",
        "embodied_rl <verb> --help tells more. Exit codes: 0 done, 1 failed, 2 bad usage.",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    accept_any_encoding()
    if words[:1] in (["--help"], ["-h"], ["help"]):
        print(usage())
        return DONE
    if words[:1] in (["--version"], ["-V"]):
        print(f"embodied_rl {__version__}")
        return DONE
    if not words or words[0] not in VERBS:
        return _no_verb(words)
    try:
        verb = importlib.import_module(f"embodied_rl.cli.{words[0]}")
        return int(verb.main(words[1:]))
    except UserError as error:
        return fail(str(error), BAD_USAGE if isinstance(error, UsageError) else FAILED)
    except ModuleNotFoundError as error:
        return _no_module(error)
    except KeyboardInterrupt:
        return fail("interrupted")
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return FAILED
    except SystemExit as end:  # an option parser has printed its own help or complaint
        return end.code if isinstance(end.code, int) else (BAD_USAGE if end.code else DONE)


def fail(line: str, code: int = FAILED) -> int:
    """Prints ``error: line`` on stderr and returns `code`."""
    print(f"error: {line}", file=sys.stderr, flush=True)
    return code


def _no_verb(words: list[str]) -> int:
    from embodied_rl.bringup.arguments import suggestion

    if not words:
        print(usage(), file=sys.stderr)
        return BAD_USAGE
    near = suggestion(words[0], VERBS)
    return fail(f"unknown verb '{words[0]}'{near}; there are {', '.join(VERBS)}", BAD_USAGE)


def _no_module(error: ModuleNotFoundError) -> int:
    """A missing package is the user's to install; a missing module of ours is a defect of ours."""
    if (error.name or "").startswith("embodied_rl"):
        raise error
    return fail(
        f"Python package '{error.name}' is not installed: make setup, or pip install -e '.[all]'"
    )


if __name__ == "__main__":
    sys.exit(main())
