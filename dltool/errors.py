"""The exceptions a user may meet, each with an exit code, a numbered cause and a cure.

DltoolError          1   the run failed
  ConfigError        2   an option or a configuration value is wrong
  DeviceError        3   the device or its driver cannot be used
  MissingExtra       3   a package that this command needs is not installed
  PluginError        4   a plugin cannot be loaded
  DataError          5   data is missing, corrupt or of the wrong kind
  CheckpointError    5   a checkpoint, model or run folder cannot be used
  CheckFailed        6   a check says no
  Diverged           7   the loss or the weights are no longer finite
  OutOfMemory        8   one step does not fit into memory
  Interrupted  130/143   stopped by a signal, work saved
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_CODES = {
    0: "done",
    1: "the run failed",
    2: "usage or configuration",
    3: "environment: device, driver or a missing extra",
    4: "plugin",
    5: "data, model or cache",
    6: "a check says no",
    7: "diverged: NaN or infinity",
    8: "out of memory",
    130: "interrupted by Ctrl-C, work saved",
    143: "terminated, work saved",
}

# Every cause that an error may carry; the first digit is the exit code where there is one.
CAUSES = {
    "E100": "an unexpected failure inside dltool or one of its libraries",
    "E101": "the disk is full or a file could not be written",
    "E103": "one of several ranks has ended, and the training with it",
    "E104": "the weights of several ranks are no longer the same",
    "E201": "an option or argument is not understood",
    "E202": "a value is out of its range",
    "E203": "a configuration file is unreadable or has an unknown key",
    "E204": "the run folder exists already",
    "E205": "two settings contradict each other",
    "E206": "a name is not known",
    "E207": "a resumed run was given other settings than the run it continues",
    "E208": "another process is using the run folder",
    "E301": "the device asked for is not there",
    "E302": "the precision asked for does not work on this device",
    "E303": "a package that this command needs is not installed",
    "E401": "a plugin failed to import",
    "E402": "a plugin asks for another API level",
    "E403": "a plugin is not a Typer app",
    "E404": "no installed plugin has this name",
    "E405": "a package could not be installed or removed",
    "E406": "this environment belongs to another program, which must install packages itself",
    "E407": "a plugin is disabled",
    "E501": "a path does not exist",
    "E502": "a file is not what its name says, or is damaged",
    "E503": "the data holds too little to learn from",
    "E504": "a download failed or did not match its checksum",
    "E505": "an archive is unsafe to unpack",
    "E506": "labels do not fit the model or the data",
    "E511": "a run or model folder is missing something",
    "E512": "a checkpoint is damaged",
    "E513": "a checkpoint does not fit the model",
    "E514": "a checkpoint was written by a newer version",
    "E601": "a check found a problem",
    "E602": "a guard found a mistake before training",
    "E701": "the loss is not finite",
    "E702": "a weight is not finite",
    "E801": "memory ran out",
    "E130": "interrupted by the user",
    "E143": "terminated by a signal",
}

# What cures a cause where the place that raises it knows nothing better.
CURES = {
    "E100": "repeat with DLTOOL_DEBUG=1 in front for the traceback, and report it",
    "E101": "free some space and check the folder's permissions",
    "E103": "go on from the last checkpoint with --resume",
    "E104": "go on from the last checkpoint with --resume; report it if it comes again",
    "E201": "see the command's --help",
    "E202": "choose another value; see the command's --help",
    "E203": "correct the configuration file",
    "E204": "choose another folder with --out",
    "E205": "leave one of them out",
    "E206": "choose one of the known names",
    "E207": "leave the changed options out",
    "E208": "wait for the other process or choose another folder",
    "E301": "use --device cpu, or see dltool doctor",
    "E302": "use --precision fp32",
    "E303": "install the package",
    "E401": "dltool plugin list",
    "E402": "upgrade the plugin or dltool",
    "E403": "ask the plugin's author",
    "E404": "dltool plugin list",
    "E405": "see the installer's words above",
    "E406": "use the command of the program that owns the environment",
    "E407": "dltool plugin enable NAME",
    "E501": "check the path",
    "E502": "replace or remove the file",
    "E503": "give more data, one subfolder a class",
    "E504": "try again, or fetch the file by hand",
    "E505": "unpack the archive yourself if you trust it",
    "E506": "correct the labels or use data of the same classes",
    "E511": "name a folder that a train command made; see dltool runs list",
    "E512": "use an older checkpoint, or copy the file again",
    "E513": "use the model that the weights were trained with",
    "E514": "pip install -U dltool",
    "E601": "see the findings above",
    "E602": "mend the mistake, or add --guards off",
    "E701": "lower --lr, or look at the data for NaN",
    "E702": "lower --lr, or look at the data for NaN",
    "E801": "try a smaller --batch-size",
    "E130": "repeat the command",
    "E143": "repeat the command",
}


class DltoolError(Exception):
    """Tell what happened, what was received, what was expected and what cures it.

    Args:
        code: a key of `CAUSES`.
        message: what happened, in one sentence without a full stop.
        received: the value that was found, when the message does not hold it.
        expected: what would have been right.
        cure: a command or an action that mends it; without one, the usual cure of the cause.
    """

    exit_code = 1

    def __init__(
        self,
        code: str,
        message: str,
        *,
        received: object = None,
        expected: str = "",
        cure: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.received = received
        self.expected = expected
        self.cure = cure or CURES[code]

    def one_line(self) -> str:
        """Return the whole error as one line of text."""
        details = []
        if self.received is not None:
            details.append(f"received {self.received!r}")
        if self.expected:
            details.append(f"expected {self.expected}")
        text = self.message + (f" ({'; '.join(details)})" if details else "")
        return " ".join(f"{text}. Cure: {self.cure}".split())

    def as_dict(self) -> dict[str, object]:
        """Return the error for `--json`."""
        return {
            "code": self.code,
            "cause": CAUSES.get(self.code, ""),
            "exit_code": self.exit_code,
            "message": self.message,
            "received": None if self.received is None else str(self.received),
            "expected": self.expected,
            "cure": self.cure,
        }


class ConfigError(DltoolError):
    """An option or a configuration value is wrong."""

    exit_code = 2


class DeviceError(DltoolError):
    """The device or its driver cannot be used as asked."""

    exit_code = 3


class MissingExtra(DltoolError):
    """A package that this command needs is not installed.

    Args:
        package: the import name that was not found.
        extra: the extra of dltool that brings it.
    """

    exit_code = 3

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            "E303",
            f"the package {package!r} is not installed",
            cure=f"pip install 'dltool[{extra}]'",
        )


class PluginError(DltoolError):
    """A plugin cannot be loaded."""

    exit_code = 4


class DataError(DltoolError):
    """Data is missing, corrupt or of the wrong kind."""

    exit_code = 5


class CheckpointError(DltoolError):
    """A checkpoint, model or run folder cannot be used."""

    exit_code = 5


class CheckFailed(DltoolError):
    """A check says no."""

    exit_code = 6


class Diverged(DltoolError):
    """The loss or the weights are no longer finite."""

    exit_code = 7


class OutOfMemory(DltoolError):
    """One step does not fit into memory."""

    exit_code = 8


class Interrupted(DltoolError):
    """The user or the system asked to stop; what was done so far is saved.

    Args:
        signal_number: 2 for Ctrl-C (exit code 130), 15 for SIGTERM (143).
        message: what was saved and where.
        cure: the command that goes on from there.
    """

    def __init__(self, signal_number: int, message: str, *, cure: str = "") -> None:
        self.exit_code = 128 + signal_number
        super().__init__("E143" if signal_number == 15 else "E130", message, cure=cure)


class Stopped(Exception):
    """The run stopped where it was asked to, saved and told how to go on: exit code 0."""


class Relayed(Exception):
    """Other processes have done the command's work and told its end; this is their exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def closest(name: str, known: Iterable[str]) -> str:
    """Return the known name that a typo most likely meant, or nothing."""
    import difflib  # only a typo pays for it

    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")
