"""Shows at the end of a run how many worlds were seen, and how short the way to each loss is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inbox.model import leases
from inbox.model.protocol import Rules
from inbox.model.search import Verdict, check, check_leases

_VERDICTS = pytest.StashKey[dict[str, Verdict]]()


@pytest.fixture(name="verdict")
def _verdict(pytestconfig: pytest.Config) -> Callable[[str, Rules], Verdict]:
    """Search, and remember the outcome for the summary."""

    def verdict(name: str, rules: Rules) -> Verdict:
        verdicts = pytestconfig.stash.setdefault(_VERDICTS, {})
        verdicts[name] = check(rules)
        return verdicts[name]

    return verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-worlds", action="store_true", help="search the model of many machines whole: minutes")


@pytest.fixture(name="two_machines")
def _two_machines(pytestconfig: pytest.Config) -> Callable[[str, leases.Rules], Verdict]:
    """Search the worlds of two machines; with fewer faults at a time unless all worlds are asked for."""

    def verdict(name: str, rules: leases.Rules) -> Verdict:
        if not pytestconfig.getoption("--all-worlds", default=False):
            rules = leases.fewer(rules)
        verdicts = pytestconfig.stash.setdefault(_VERDICTS, {})
        verdicts[f"two machines: {name}"] = check_leases(rules)
        return verdicts[f"two machines: {name}"]

    return verdict


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if verdicts := config.stash.get(_VERDICTS, None):
        terminalreporter.section("model of the Inbox protocol")
        for name, verdict in verdicts.items():
            terminalreporter.write_line(f"{name:<58} {verdict}")
            if terminalreporter.verbosity > 0 and verdict.way:
                terminalreporter.write_line(f"    {' > '.join(verdict.way)}")
