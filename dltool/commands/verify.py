"""`dltool verify`: prove promises by doing what they speak of."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import options, plugins, processes, runs
from dltool.console import Console
from dltool.errors import CheckFailed, ConfigError

app = typer.Typer(
    help="Prove what is promised: that resume is exact.",
    no_args_is_help=True,
    context_settings=options.HELP,
    epilog="Try: dltool verify resume cnn -- --epochs 8",
)
# at which share of the steps to stop; a run that is over before gets an earlier stop
SHARES = (0.5, 0.25, 0.0)


@app.callback()
def root() -> None:
    """Prove what is promised."""


@app.command()
def resume(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic to train.")],
    train_options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- OPTIONS...]", help="Options of its train command."),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Train twice, straight and stopped halfway and resumed; exit 6 unless every bit is equal."""
    console = Console("verify resume", json=json)
    name, given = plugins.find(topic).name, list(train_options or ())
    with tempfile.TemporaryDirectory(prefix="dltool-verify-") as folder:
        straight, stopped = Path(folder, "straight"), Path(folder, "stopped")
        console.note(f"1 of 3: dltool {name} train {runs.command_line(given)}, straight")
        ended = processes.run([name, "train", *given, "--out", str(straight)])
        processes.refuse_failure(ended, f"{name} train")
        steps = _last_step(ended.events)
        place = _stop_halfway(name, given, stopped, steps, console)
        console.note(f"3 of 3: resumed from step {place}")
        ended = processes.run([name, "train", "--resume", str(stopped)])
        processes.refuse_failure(ended, f"{name} train --resume")
        console.loading()
        from dltool.compare import runs_differ

        difference = runs_differ(straight, stopped)
    result = {"topic": name, "steps": steps, "stopped_at": place, "first_difference": difference}
    text = f"stopped at step {place} of {steps} and resumed"
    if difference is not None:
        if not json:
            console.result(result, f"FAIL {name}: {text}: {difference}")
        raise CheckFailed(
            "E601",
            f"{name} {text} differs from the straight run in {difference}",
            cure="seed every stream (dltool.device.seed_everything), and draw what shapes a batch "
            "from generators of (seed, epoch, batch)",
        )
    console.result(
        {**result, "equal": True},
        f"ok   {name}: {text}, every bit equal: weights, optimizer, random streams, metrics",
    )


def _last_step(events: list[dict[str, Any]]) -> int:
    steps = [int(event["step"]) for event in events if isinstance(event.get("step"), int)]
    if not steps:
        raise ConfigError(
            "E205",
            "the training told no step, so that it cannot be stopped halfway",
            cure="use dltool.training.session in the topic's train command",
        )
    return max(steps)


def _stop_halfway(name: str, given: list[str], folder: Path, steps: int, console: Console) -> int:
    """Train again and interrupt it; return the step at which it stopped."""
    for number, share in enumerate(SHARES):
        target = folder if number == len(SHARES) - 1 else folder.with_name(f"try-{number}")
        console.note(f"2 of 3: the same, interrupted at about step {round(share * steps)}")

        def is_reached(event: dict[str, Any], wanted: float = share * steps) -> bool:
            return int(event.get("step", 0)) >= wanted

        ended = processes.run([name, "train", *given, "--out", str(target)], stop_when=is_reached)
        processes.refuse_failure(ended, f"{name} train", 130)
        step = runs.read_json(target).get("step")
        if ended.code == 130 and isinstance(step, int):
            if target != folder:
                target.rename(folder)
            return step
    raise ConfigError(
        "E202",
        "the training is over before it can be stopped",
        received=f"{steps} steps",
        expected="a second of training or more",
        cure=f"dltool verify resume {name} -- --epochs 50",
    )
