"""The core commands; a topic can never take the name of one."""

CORE_COMMANDS = {
    "check": (
        "dltool.commands.check:app",
        "Look for silent mistakes in a topic, a run, your own code or a log.",
    ),
    "checkpoint": (
        "dltool.commands.checkpoint:app",
        "Look into checkpoints, verify, compare, convert and prune them.",
    ),
    "config": (
        "dltool.commands.config:app",
        "Settings of trainings: show them with their origins, check and write files of them.",
    ),
    "data": (
        "dltool.commands.data:app",
        "The named data sets: list, fetch, verify, prune them, and bundle them for other machines.",
    ),
    "doctor": (
        "dltool.commands.doctor:app",
        "Check this installation; each finding with its cure.",
    ),
    "explain": (
        "dltool.commands.explain:app",
        "Say what a code such as E503 or G-P09 means, and what cures it.",
    ),
    "guards": (
        "dltool.commands.guards:app",
        "A tour of silent mistakes: plant one, see what it does, see who finds it.",
    ),
    "plugin": ("dltool.commands.plugin:app", "Look after topics: list, check, install, new."),
    "reproduce": (
        "dltool.commands.reproduce:app",
        "Run a run again and name the first value that differs.",
    ),
    "resume": ("dltool.commands.resume:app", "Go on with a stopped run of any topic."),
    "runs": ("dltool.commands.runs:app", "Look back at runs: list, compare, draw, report, remove."),
    "schema": (
        "dltool.commands.schema:app",
        "JSON Schema of a command's settings, of its --json, or of a whole dltool.toml.",
    ),
    "sweep": (
        "dltool.commands.sweep:app",
        "Train with many settings and seeds, some at a time, and compare: mean and deviation.",
    ),
    "topics": ("dltool.commands.topics:app", "What each topic can do: verbs and formats."),
    "verify": ("dltool.commands.verify:app", "Prove what is promised: that resume is exact."),
}
