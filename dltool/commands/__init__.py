"""The core commands; a topic can never take the name of one."""

CORE_COMMANDS = {
    "checkpoint": ("dltool.commands.checkpoint:app", "Look into checkpoints and verify them."),
    "data": ("dltool.commands.data:app", "List, fetch and locate the named data sets."),
    "doctor": (
        "dltool.commands.doctor:app",
        "Check this installation; each finding with its cure.",
    ),
    "plugin": ("dltool.commands.plugin:app", "Look after topics: list, check, install, new."),
    "runs": ("dltool.commands.runs:app", "List and show finished and running runs."),
}
