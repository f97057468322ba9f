"""`dltool guards`: a tour of planted mistakes, each in a small training of seconds."""

from __future__ import annotations

from typing import Annotated

import typer

from dltool import options
from dltool.console import Console, table
from dltool.errors import CheckFailed

app = typer.Typer(
    help="A tour of silent mistakes: plant one, see what it does, see who finds it.",
    no_args_is_help=True,
    context_settings=options.HELP,
)


@app.callback()
def root() -> None:
    """Learn what guards find."""


@app.command("list")
def list_guards(json: options.JsonOption = False) -> None:
    """List every guard: when it looks, how bad what it finds is, and what that is."""
    console = Console("guards list", json=json)
    from dltool.guards.catalogue import guards

    known = guards().values()
    rows = [[guard.code, guard.stage, guard.severity, guard.title] for guard in known]
    text = table(rows, ["code", "stage", "at worst", "finds"])
    console.result({"guards": [guard.as_dict() for guard in known]}, text)


@app.command()
def demo(
    name: Annotated[
        str, typer.Argument(metavar="[NAME|all]", help="A planted mistake; without one: the list.")
    ] = "",
    seed: options.SeedOption = 0,
    json: options.JsonOption = False,
) -> None:
    """Plant a mistake in a small training: what it does to the result, and which guard names it."""
    console = Console("guards demo", json=json)
    console.loading()
    from dltool.guards.planted import tour

    known = tour.all_planted()
    if not name:
        found = [each.mistake for each in known.values()]
        rows = [[each.name, each.code, each.stage, each.title] for each in found]
        header = ["name", "guard", "stage", "mistake"]
        listed = [dict(zip(header, row, strict=True)) for row in rows]
        console.result({"demos": listed}, table(rows, header))
        console.hint(f"dltool guards demo {rows[0][0]}")
        return
    shown = []
    for each in known if name == "all" else [name]:
        shown.append(tour.show(each, seed))
        if name == "all":
            console.note(_line(shown[-1]))
    missed = [each.name for each in shown if not each.is_found]
    if name == "all":
        count = len(shown) - len(missed)
        text = f"{count} of {len(shown)} planted mistakes found, their healthy twins left in peace"
        console.result({"demos": [each.as_dict() for each in shown]}, text)
    else:
        console.result(shown[0].as_dict(), _story(shown[0]))
        console.hint(f"dltool explain {shown[0].code}")
    if missed:
        raise CheckFailed("E601", f"not found as it should be: {', '.join(missed)}")


def _score(value: float | None) -> str:
    return "breaks off" if value is None else f"{value:.3f}"


def _line(shown: object) -> str:
    from dltool.guards.planted.tour import Shown

    assert isinstance(shown, Shown)
    codes = ", ".join(shown.report.codes) or "nothing"
    scores = f"{_score(shown.healthy)} -> {_score(shown.planted)}"
    return f"{shown.name:<18} {scores:<22} found by {codes}"


def _story(shown: object) -> str:
    from dltool.guards.planted.tour import STEPS, Shown

    assert isinstance(shown, Shown)
    lines = [
        f"{shown.name}: {shown.title}",
        f"held-out score after {STEPS} steps: {_score(shown.healthy)} without the mistake, "
        f"{_score(shown.planted)} with it",
        "",
    ]
    lines += [f"{each.severity.upper()} {each.text()}" for each in shown.report.findings]
    quiet = "found nothing" if not shown.quiet.findings else "ALARMED: " + shown.quiet.text()
    lines += ["", f"the healthy twin: {quiet}; {shown.seconds:.1f} s for both looks"]
    return "\n".join(lines)
