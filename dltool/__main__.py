"""Start the command line; `python -m dltool` and the console script are the same door."""

import os
import sys


def main() -> None:
    """Answer `--version` at once; hand every other call to the command line proper."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from dltool import __version__

        print(f"dltool {__version__}")
        return
    if "_DLTOOL_COMPLETE" in os.environ:
        from dltool.completion import main as complete

        complete()
        return
    from dltool.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
