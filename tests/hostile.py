"""Make plugins, also hostile ones, as installed packages below a folder: no pip, no network."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

GOOD_APP = '''"""A topic."""
import typer
from dltool.console import Console
app = typer.Typer(help="A topic.", no_args_is_help=True)
@app.callback()
def root() -> None:
    """A topic."""
@app.command()
def say(json: bool = False) -> None:
    """Say something."""
    Console("say", json=json).result({"said": 1}, "said")
'''
MANIFEST = 'name = "{name}"\nsummary = "{summary}"\napi = "{api}"\nverbs = ["say"]\n'


def install(
    site: Path,
    name: str,
    *,
    package: str = "",
    distribution: str = "",
    cli: str | bytes = GOOD_APP,
    init: str = "",
    manifest: str | bytes | None = "",
    api: str = ">=1,<2",
    summary: str = "A made-up topic",
    value: str = "",
    requires: tuple[str, ...] = (),
) -> Path:
    """Put one package with its metadata into a folder, as pip leaves it."""
    package = package or "plug_" + "".join(c if c.isalnum() else "_" for c in name)
    distribution = distribution or f"dltool-{package.removeprefix('plug_').replace('_', '-')}"
    folder = site / package
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(init, encoding="utf-8")
    source = cli if isinstance(cli, bytes) else cli.encode()
    (folder / "cli.py").write_bytes(source)
    if manifest == "":
        manifest = MANIFEST.format(name=name, summary=summary, api=api)
    if manifest is not None:
        text = manifest if isinstance(manifest, bytes) else manifest.encode()
        (folder / "plugin.toml").write_bytes(text)
    information = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    information.mkdir(exist_ok=True)
    lines = ["Metadata-Version: 2.1", f"Name: {distribution}", "Version: 1.0"]
    lines += [f"Requires-Dist: {item}" for item in requires]
    (information / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (information / "entry_points.txt").write_text(
        f"[dltool.plugins]\n{name} = {value or f'{package}.cli:app'}\n", encoding="utf-8"
    )
    return folder


@dataclass(frozen=True)
class Hostile:
    """One kind of hostile plugin and what the host must say about it.

    Attributes:
        make: installs it into a folder.
        name: the name under which `plugin list` shows it; empty when the name itself is odd.
        cause: words that calling or checking it must show.
        call: exit code of a call; None when it may not be called (it hangs or ends the process).
        check: exit code of `plugin check`.
        is_known: whether `--help` marks it broken without importing it.
    """

    make: Callable[[Path], object]
    name: str = "evil"
    cause: str = ""
    call: int | None = 4
    check: int = 6
    is_known: bool = False
    variables: dict[str, str] = field(default_factory=dict)


def evil(cli: str | bytes = GOOD_APP, **settings: object) -> Callable[[Path], object]:
    """Return what installs a plugin `evil` with this source."""
    return lambda site: install(site, "evil", cli=cli, **settings)  # type: ignore[arg-type]


def odd_manifest(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return what installs a sound plugin and then does something to its manifest's place."""

    def make(site: Path) -> None:
        folder = install(site, "evil", manifest=None)
        change(folder / "plugin.toml")

    return make


def metadata_of_bytes(site: Path) -> None:
    folder = site / "dltool_bytes-1.0.dist-info"
    install(site, "evil")
    folder.mkdir()
    (folder / "entry_points.txt").write_bytes(b"[dltool.plugins]\n\xff\xfe = \x00:app\n")


def no_metadata(site: Path) -> None:
    install(site, "evil")
    (site / "dltool_evil-1.0.dist-info" / "METADATA").unlink()


def cyclic(site: Path) -> None:
    folder = install(site, "evil", cli="from plug_evil.other import app\n")
    (folder / "other.py").write_text("from plug_evil.cli import app\n", encoding="utf-8")


def shadow(site: Path) -> None:
    install(
        site,
        "evil",
        package="dltool_cnn",
        distribution="dltool-evil",
        cli="raise RuntimeError('not ours')\n",
        summary="HIJACKED",
    )


def false_host(site: Path) -> None:
    install(site, "cnn", package="plug_host", distribution="dltool", summary="HIJACKED")


RAISES = {
    "raises": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "exits": ("import sys; sys.exit(3)", "SystemExit"),
    "exits_in_silence": ("raise SystemExit", "SystemExit"),
    "bare_exception": ("class E(BaseException): pass\nraise E('odd')", "E: odd"),
    "exception_without_text": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "E: (no text)",
    ),
    "colours_in_its_error": (r"raise RuntimeError('\x1b[31mred\x1b[0m\nlines')", "RuntimeError"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "generator_exit": ("raise GeneratorExit", "GeneratorExit"),
    "stdout_gone": ("import sys; sys.stdout = None; raise RuntimeError('x')", "RuntimeError: x"),
    "no_such_attribute": ("import typer", "no attribute 'app'"),
    "not_an_app": ("app = 'a text'", "not a Typer app"),
    "app_cannot_be_built": (
        "import typer\napp = typer.Typer()",
        "cannot be built",
    ),
}
KNOWN = {
    "syntax_error": (GOOD_APP + "def broken(:\n", "SyntaxError"),
    "missing_package": ("import not_installed_anywhere\n" + GOOD_APP, "not_installed_anywhere"),
    "missing_module_of_its_own": ("from plug_evil.gone import x\n" + GOOD_APP, "plug_evil.gone"),
    "null_bytes": (b"x = 1\x00\n", "null bytes"),
    "deep_nesting": ("x = " + "(" * 5000 + ")" * 5000, "too many nested parentheses"),
}
FATAL = {
    "ends_the_process": ("import os; os._exit(0)", "ends the process"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "hangs": ("import time\nwhile True: time.sleep(1)", "does not end"),
    "hangs_and_ignores_signals": (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        "does not end",
    ),
    "raises_ctrl_c": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
}
# sound enough to be used: what they do at import must not reach the host
NUISANCES = {
    "prints": ("print('noise'); import sys; sys.__stdout__.write('noise')", "prints at import"),
    "writes_to_descriptor": ("import os; os.write(1, b'noise')", ""),
    "child_prints": ("import subprocess; subprocess.run(['echo', 'noise'])", ""),
    "changes_path": ("import sys; sys.path[:] = ['/nowhere'] + sys.path", "changes sys.path"),
    "changes_folder": ("import os; os.chdir('/')", "changes the working folder"),
    "takes_signals": ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", ""),
    "replaces_stdout": ("import sys, io; sys.stdout = io.StringIO()", ""),
    "starts_a_thread": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "starts threads",
    ),
    "writes_a_file": (
        "import tempfile, pathlib\n"
        "pathlib.Path(tempfile.gettempdir(), 'dltool-hostile').write_text('x')",
        "writes files",
    ),
    "warns": ("import warnings; warnings.warn('noise')", ""),
}


def matrix() -> dict[str, Hostile]:
    """Return every kind of hostile plugin by its name."""
    found = {key: Hostile(evil(code), cause=cause) for key, (code, cause) in RAISES.items()}
    for key, (known, cause) in KNOWN.items():
        found[key] = Hostile(evil(known), cause=cause, is_known=True)
    for key, (code, cause) in FATAL.items():
        found[key] = Hostile(evil(code), cause=cause, call=None)
    for key, (code, cause) in NUISANCES.items():
        found[key] = Hostile(evil(f"{code}\n{GOOD_APP}"), cause=cause, call=0, check=0)
    found["heavy_import"] = Hostile(
        evil("import numpy\n" + GOOD_APP), cause="imports numpy at start-up (plug_evil.cli", call=0
    )
    known = {
        "other_api": (evil(api=">=2"), "API level >=2"),
        "nonsense_api": (evil(api="soon"), "API level soon"),
        "package_gone": (evil(value="not_there_at_all.cli:app"), "is not there"),
        "module_gone": (evil(value="plug_evil.gone:app"), "plug_evil.gone"),
        "no_reference": (evil(value="just words here"), "is not module:attribute"),
        "no_attribute": (evil(value="plug_evil.cli"), "is not module:attribute"),
        "manifest_is_a_folder": (odd_manifest(Path.mkdir), "is a folder"),
        "manifest_is_binary": (
            odd_manifest(lambda path: path.write_bytes(bytes(range(256)))),
            "unreadable",
        ),
        "manifest_of_10_mb": (
            odd_manifest(lambda path: path.write_bytes(b"#" * 10_000_000)),
            "larger than",
        ),
        "manifest_of_wrong_types": (evil(manifest="verbs = 3\n"), "must be a list"),
        "manifest_is_nested": (
            odd_manifest(lambda path: path.write_text("x = " + "[" * 9000)),
            "nested too deeply",
        ),
    }
    if hasattr(os, "mkfifo"):
        known["manifest_is_a_pipe"] = (odd_manifest(os.mkfifo), "no ordinary file")
        known["manifest_is_a_link_to_itself"] = (
            odd_manifest(lambda path: path.symlink_to(path)),
            "unreadable",
        )
    for key, (make, cause) in known.items():
        found[key] = Hostile(make, cause=cause, is_known=True)
    found["imports_in_a_circle"] = Hostile(cyclic, cause="circular import")
    found["shadows_our_topic"] = Hostile(shadow, cause="not ours")
    found["claims_to_be_dltool"] = Hostile(false_host, "dltool~2:cnn", call=0, check=0)
    sound = {
        "core_name": ("doctor", "dltool-evil:doctor"),
        "our_name": ("cnn", "dltool-evil:cnn"),
    }
    for key, (name, shown) in sound.items():
        found[key] = Hostile(
            lambda site, name=name: install(  # type: ignore[misc]
                site, name, package="plug_evil", summary="HIJACKED"
            ),
            shown,
            call=0,
            check=0,
        )
    for key, name in {
        "name_with_spaces": "two words",
        "name_like_an_option": "--help",
        "name_with_colours": "\x1b[31mred",
        "name_that_climbs": "../../evil",
        "name_for_a_shell": "$(touch pwned)",
        "name_with_a_colon": "a:b",
        "name_of_500_letters": "x" * 500,
    }.items():
        found[key] = Hostile(
            lambda site, name=name: install(  # type: ignore[misc]
                site, name, package="plug_evil", manifest=None
            ),
            "",
            cause="cannot be typed",
            is_known=True,
        )
    found["markup_in_summary"] = Hostile(
        evil(summary="[/bold] [red]x[/nothing] $(touch pwned) `touch pwned` '\\\"; touch pwned"),
        call=0,
        check=0,
    )
    found["no_manifest"] = Hostile(evil(manifest=None), call=0, check=0)
    found["unknown_keys"] = Hostile(
        evil(manifest='summary = "later"\ncolour = "blue"\n'), cause="unknown key", call=0, check=0
    )
    found["no_metadata"] = Hostile(no_metadata, call=0, check=0)
    found["metadata_of_bytes"] = Hostile(metadata_of_bytes, call=0, check=0)
    return found
