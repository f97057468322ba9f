"""The root of the command line: a lazy table of commands, and the one edge that prints errors."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any

if not sys.stdout.isatty():
    # plain help starts 50 ms sooner than the framed one, and pipes want plain text anyway
    os.environ.setdefault("TYPER_USE_RICH", "0")

import typer
from typer.core import TyperCommand, TyperGroup

from dltool import __version__, console, plugins
from dltool.commands import CORE_COMMANDS
from dltool.errors import (
    CAUSES,
    ConfigError,
    DltoolError,
    Interrupted,
    OutOfMemory,
    PluginError,
    Relayed,
    Stopped,
)

BROKEN = {"allow_extra_args": True, "ignore_unknown_options": True}


class LazyGroup(TyperGroup):
    """List commands from static tables; import a topic only when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.topics: dict[str, plugins.Plugin] | None = None
        self.problems: dict[str, str] | None = None

    def installed(self) -> dict[str, plugins.Plugin]:
        """Return the topics by name; a core command can never be replaced by one."""
        if self.topics is None:
            self.topics = {
                topic.qualified if topic.name in CORE_COMMANDS else topic.name: topic
                for topic in plugins.discover()
            }
        return self.topics

    def problem(self, name: str) -> str:
        """Return what is known against a topic without importing it; empty when nothing is."""
        if self.problems is None:
            examined = plugins.examined(self.installed().values())
            names = zip(self.installed(), examined, strict=True)
            self.problems = {name: topic.problem for name, topic in names}
        return self.problems[name]

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the topics that are not disabled, then the core commands."""
        topics = [name for name, topic in self.installed().items() if not topic.is_disabled]
        return [*topics, *CORE_COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stand-in with the summary, for help and completion: nothing is imported."""
        if cmd_name in CORE_COMMANDS:
            return _stand_in(cmd_name, CORE_COMMANDS[cmd_name][1])
        topic = self.installed().get(cmd_name)
        if topic is None:
            return None
        problem = self.problem(cmd_name)
        text = f"[broken] {problem}" if problem else topic.summary
        return _stand_in(cmd_name, _plain(text or f"(no summary; from {topic.distribution})"))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import and return the one command that is called."""
        name = args[0]
        if name in CORE_COMMANDS:
            module, _, attribute = CORE_COMMANDS[name][0].partition(":")
            return name, _built(getattr(importlib.import_module(module), attribute), name), args[1:]
        topic = self._called(name)
        if topic is not None:
            if ctx.resilient_parsing and topic.verbs and not args[1:]:
                verbs: list[Any] = [_stand_in(verb, "") for verb in topic.verbs]
                return name, TyperGroup(name=name, commands=verbs), []
            if not ctx.resilient_parsing:
                _tell_rivals(topic, name)
            return name, _topic(topic, name, remember=_is_work(ctx, args)), args[1:]
        if name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        known = self.list_commands(ctx)
        raise ConfigError(
            "E201",
            f"there is no command {name!r}{_nearest(name, known)}",
            expected=f"one of {', '.join(known)}",
            cure="dltool --help",
        )

    def _called(self, name: str) -> plugins.Plugin | None:
        topics = self.installed()
        qualified = {topic.qualified: topic for topic in topics.values()}
        return topics.get(name) or qualified.get(name)


def _plain(text: str) -> str:
    """Keep a stranger's brackets from being read as markup where help is drawn in frames."""
    framed = os.environ.get("TYPER_USE_RICH", "1").lower() not in ("0", "false", "no", "off")
    return text.replace("[", "\\[") if framed else text


def _tell_rivals(topic: plugins.Plugin, name: str) -> None:
    """Say in passing which of several plugins of one name runs, unless the user chose it."""
    if topic.rivals and name == topic.entry and "your choice" not in topic.why:
        console.Console("").note(
            f"note: {topic.name!r} is of {topic.distribution} ({topic.why}); also installed: "
            f"{', '.join(topic.rivals)}; choose with dltool plugin prefer"
        )


def _nearest(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _stand_in(name: str, text: str, action: Callable[[], None] | None = None) -> TyperCommand:
    # a cause is shown whole in lists, a summary is cut to a line
    whole = text if text.lstrip("\\").startswith("[broken]") else None
    settings = dict(BROKEN)
    command = TyperCommand(name, help=text, short_help=whole, context_settings=settings)
    command.callback = action or (lambda: None)
    return command


def _built(app: typer.Typer, name: str) -> Any:
    command = typer.main.get_command(app)
    command.name = name
    # Typer offers completion for each app as if it were a program of its own
    of_a_program = ("install_completion", "show_completion")
    command.params = [each for each in command.params if each.name not in of_a_program]
    return command


def _is_work(ctx: Any, arguments: list[str]) -> bool:
    """Tell whether a call may write: help, information and completion may not."""
    return not ctx.resilient_parsing and not {"--help", "-h", "info"} & set(arguments)


def _topic(topic: plugins.Plugin, name: str, *, remember: bool) -> Any:
    cause = None
    try:
        if topic.is_disabled:
            raise PluginError(
                "E407", f"plugin {name!r} is disabled", cure=f"dltool plugin enable {name}"
            )
        command = _built(plugins.load(topic), name)
    except PluginError as error:
        cause = error
    except Exception as error:  # the app itself is malformed: Typer cannot build its commands
        text = f"plugin {name!r} cannot be built: {type(error).__name__}: {error}"
        cause = PluginError("E403", text, cure=f"dltool plugin check {name}")
    if cause is None:
        return command
    refused = cause
    if remember and cause.code in ("E401", "E403"):
        plugins.remember_failure(topic, cause)

    def tell_cause() -> None:
        raise refused

    # the stand-in takes any arguments, so that the user sees the cause and not a usage error
    return _stand_in(name, f"[broken] {refused.message}", tell_cause)


def _show_version(value: bool) -> None:
    if value:
        print(f"dltool {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try: dltool cnn train     Exit codes and conventions: see the README.",
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", help="Leave every topic out; core commands only.")
    ] = False,
) -> None:
    """Deep-learning experiments, right the first time: train, check, resume, evaluate, use."""


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every error is printed here."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in options
    if "--no-plugins" in _leading_options(arguments):
        os.environ["DLTOOL_NO_PLUGINS"] = "1"
    name = " ".join(word for word in arguments[:2] if not word.startswith("-"))
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a script's background job starts so; `kill -INT` must stop it at any moment, not only
        # while it trains
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGUSR1"):
        # asks a training for a checkpoint; before it can have one, that must not end the process
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        result = typer.main.get_command(app).main(
            arguments, prog_name="dltool", standalone_mode=False, windows_expand_args=False
        )
        if result == 130:
            raise _interrupted()
        return result if isinstance(result, int) else 0
    except Stopped:
        return 0
    except Relayed as ended:
        return ended.code
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit:
        # Typer wraps the streams and leaves in silence when it meets a closed pipe itself
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":
            return _reader_gone()
        raise
    except (Exception, KeyboardInterrupt) as caught:
        error = _interrupted() if isinstance(caught, KeyboardInterrupt) else caught
        if os.environ.get("DLTOOL_DEBUG"):
            import traceback

            traceback.print_exc()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error, file=sys.stderr)
            return 2
        known = explain(error, name)
        console.print_error(known, command=name, as_json=as_json)
        return known.exit_code


def _reader_gone() -> int:
    """End well: the reader (head, less) has seen enough, and nobody listens any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


class Terminated(KeyboardInterrupt):
    """SIGTERM came: like Ctrl-C, so that no `except Exception` of a library can swallow it."""


terminated = False


def _terminate(number: int, frame: FrameType | None) -> None:
    global terminated
    terminated = True
    raise Terminated


def _interrupted() -> Interrupted:
    if terminated:
        return Interrupted(15, "terminated; there was nothing to save")
    return Interrupted(2, "interrupted; there was nothing to save")


def _leading_options(arguments: list[str]) -> list[str]:
    for position, word in enumerate(arguments):
        if not word.startswith("-"):
            return arguments[:position]
    return arguments


def explain(error: Exception, command: str) -> DltoolError:
    """Return any exception as one of ours."""
    if isinstance(error, DltoolError):
        return error
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else f"dltool {command}".strip()
        return ConfigError("E201", error.format_message().rstrip("."), cure=f"{path} --help")
    if isinstance(error, typer.Abort):
        return ConfigError("E201", "stopped at a question that got no answer")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory("E801", "memory ran out", cure="try a smaller --batch-size")
    if isinstance(error, OSError) and error.filename is not None:
        return DltoolError("E101", f"{error.strerror}: {error.filename}", cure="check the path")
    return DltoolError(
        "E100",
        f"{CAUSES['E100']}: {type(error).__name__}: {error}",
    )
