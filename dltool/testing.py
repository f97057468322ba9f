"""A pytest plugin that holds topics to the contract: `pytest --dltool-plugin my-topic`.

pytest loads this file in every environment where dltool is installed: it imports nothing but pytest
until the option is used.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dltool.conformance import Topic

OPTION = "--dltool-plugin"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the conformance kit."""
    group = parser.getgroup("dltool", "conformance of dltool's topics")
    group.addoption(
        OPTION,
        action="append",
        default=[],
        metavar="NAME",
        help="hold the installed topic NAME to dltool's plugin contract; may be repeated",
    )
    group.addoption(
        "--dltool-smoke-seconds",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long the smoke training of a topic may take (default: 30)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add one item for each check of each topic that was named."""
    names: list[str] = config.getoption(OPTION)
    for name in dict.fromkeys(names):
        items.extend(_items(session, config, name))


def _items(session: pytest.Session, config: pytest.Config, name: str) -> list[pytest.Item]:
    from dltool import conformance, plugins
    from dltool.errors import PluginError

    try:
        plugin = plugins.find(name)
    except PluginError as error:
        raise pytest.UsageError(error.one_line()) from error
    folder = Path(tempfile.mkdtemp(prefix="dltool-conformance-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    topic = conformance.Topic(name, folder, config.getoption("--dltool-smoke-seconds"))
    place = f"dltool-plugin[{name}]"
    group = TopicNode.from_parent(session, name=name, nodeid=place)
    return [
        ConformanceItem.from_parent(group, name=check.__name__, check=check, topic=topic)
        for check in conformance.checks_of(plugin)
    ]


class TopicNode(pytest.Collector):
    """The checks of one topic."""

    def collect(self) -> list[pytest.Item]:
        """Return nothing: the items are made with the node."""
        return []


class ConformanceItem(pytest.Item):
    """One check of one topic."""

    def __init__(self, *, check: Callable[[Topic], None], topic: Topic, **settings: Any) -> None:
        super().__init__(**settings)
        self.check, self.topic = check, topic

    def runtest(self) -> None:
        """Run the check."""
        self.check(self.topic)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show a breach as its message: what the contract says is in the check's first line."""
        from dltool.conformance import Breach
        from dltool.errors import DltoolError

        if isinstance(excinfo.value, Breach | DltoolError):
            return f"{self.check.__doc__}\n\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Name the check in pytest's reports."""
        return Path("dltool-plugin"), None, f"{self.topic.name}: {self.name}"
