"""Shows at the end of a run how many worlds were seen, and how short the way to each loss is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inbox.model.protocol import Rules
from inbox.model.search import Verdict, check

_VERDICTS = pytest.StashKey[dict[str, Verdict]]()


@pytest.fixture(name="verdict")
def _verdict(pytestconfig: pytest.Config) -> Callable[[str, Rules], Verdict]:
    """Search, and remember the outcome for the summary."""

    def verdict(name: str, rules: Rules) -> Verdict:
        verdicts = pytestconfig.stash.setdefault(_VERDICTS, {})
        verdicts[name] = check(rules)
        return verdicts[name]

    return verdict


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if verdicts := config.stash.get(_VERDICTS, None):
        terminalreporter.section("model of the Inbox protocol")
        for name, verdict in verdicts.items():
            terminalreporter.write_line(f"{name:<40} {verdict}")
            if terminalreporter.verbosity > 0 and verdict.way:
                terminalreporter.write_line(f"    {' > '.join(verdict.way)}")
