"""``embodied_rl eval MODEL``: how well a model does, as its method judges it."""

from __future__ import annotations

import json

from rich.console import Console

from embodied_rl.bringup.check import check_folder
from embodied_rl.cli import UsageError, eval_bags
from embodied_rl.cli.eval_episodes import EpisodesWithProgress
from embodied_rl.cli.options import parse
from embodied_rl.core.checkpoint import atomic_write
from embodied_rl.core.errors import UserError
from embodied_rl.policies.method import EvaluateArguments, Model, Report
from embodied_rl.policies.registry import find_model, methods, shipped_models
from embodied_rl.training.publish import record_measurement

EXAMPLE = "example: embodied_rl eval ptp_replace_object --episodes 200 --seed 0 --json eval.json"
REPLAY = "With --bags DIR nothing is run: see 'embodied_rl eval MODEL --bags --help'."


def main(argv: list[str]) -> int:
    """Evaluates, prints, writes; 0 when the episodes ran, whatever their outcome."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0].startswith("-"):
        raise UsageError(f"eval: expected the model before its options, saw {argv[0]}; {EXAMPLE}")
    try:
        model = find_model(argv[0])
    except UserError as error:  # a name that does not exist is the command line's fault
        raise UsageError(str(error)) from None
    words, prog = argv[1:], f"embodied_rl eval {argv[0]}"
    if any(word.split("=")[0] == "--bags" for word in words):
        return eval_bags.main(model, words, prog)
    evaluator = model.method.evaluator(model.folder)
    arguments, options = parse(
        {
            "evaluation": evaluator.arguments,
            "policy": evaluator.options or model.method.options,
        },
        words,
        prog,
        f"{evaluator.summary} {REPLAY}",
    )
    check_arguments(model, arguments)
    report = evaluator.run(model, arguments, options, EpisodesWithProgress())
    write(report, model, arguments)
    return 0


def check_arguments(model: Model, arguments: EvaluateArguments) -> None:
    """Before the episodes, not after them."""
    if arguments.seed < 0:
        raise UsageError(f"--seed: expected at least 0, saw {arguments.seed}")
    if arguments.json is not None:
        check_folder(arguments.json.parent, "--json FILE")
    if arguments.card and model.folder is None:
        raise UsageError(f"--card needs a checkpoint; {model.name} has no card")


def write(report: Report, model: Model, arguments: EvaluateArguments) -> None:
    """To the terminal, and to the places that were asked for."""
    console = Console()
    for part in report.shown:
        if isinstance(part, str):
            console.print(part, soft_wrap=True, highlight=False)
        else:
            console.print(part)
    if arguments.json is not None:
        with atomic_write(arguments.json) as path:
            path.write_text(json.dumps(report.figures, indent=2) + "\n", encoding="utf-8")
    if arguments.card and model.folder is not None:
        record_measurement(model.folder, report.card)


def _overview() -> str:
    lines = [
        "usage: embodied_rl eval MODEL [options]",
        "",
        "MODEL is the name of a shipped model, a checkpoint folder, or the demonstrator 'expert'.",
        "Each has options of its own: embodied_rl eval MODEL --help lists them.",
        REPLAY,
        "",
        "methods:",
        *(f"  {method.name:<8} {method.summary}" for method in methods().values()),
        "",
        f"shipped models: {', '.join(shipped_models())}",
        "",
        EXAMPLE,
    ]
    return "\n".join(lines)
