"""Which tests run on which worker of `pytest -n 2`.

A worker runs a module whole, so that what the module shares is made once; modules that share something keep
together by `pytestmark = pytest.mark.xdist_group("name")`. What takes long is begun first, so that no worker
is left alone with it at the end.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

ROOT = Path(__file__).parents[1]
GROUP = re.compile(r'^pytestmark = .*\bxdist_group\("([a-z-]+)"\)', re.MULTILINE)
OLLAMA = "ollama"
"""The group of those that ask the real Ollama, which answers one question at a time: all of `tests/real`."""

SECONDS = {
    OLLAMA: 140,
    "docker": 77,
    "tests/bench/test_soak.py": 26,
    "tests/test_quickstart.py": 34,
    "tests/wire/test_guards.py": 29,
    "tests/deploy/test_rolling_restart.py": 27,
    "tests/wire/test_fairness.py": 26,
    "tests/clients/test_continue.py": 25,
    "systemd": 23,
    "tests/wire/test_drain.py": 23,
    "tests/test_docs.py": 22,
    "tests/wire/test_keys_followed.py": 15,
    "tests/clients/test_claude_code.py": 14,
    "tests/deploy/test_dashboard.py": 13,
    "tests/wire/test_ledger.py": 13,
    "tests/cli/test_keys.py": 12,
    "tests/wire/test_guarded_bodies.py": 12,
    "tests/wire/test_audit.py": 12,
    "tests/policy/test_differential.py": 11,
    "tests/store/test_follow.py": 11,
    "browser": 10,
}
"""How long modules and groups take, where it is more than a few seconds."""


@cache
def group(module: str) -> str:
    """The group of a module, which is the module itself where it names none.

    Read from its text: the mark would have to come with each test's id, which pytest-xdist 3.8 cannot put it
    into since pytest 9.2.
    """
    if module.startswith("tests/real/"):
        return OLLAMA
    named = GROUP.search((ROOT / module).read_text("utf-8"))
    return named[1] if named else module


class ByGroup(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker has ended: the test that it ran has failed, and what it has not yet run is for others.

        As it comes, pytest-xdist 3.8 would run the same test again, and wait for groups that are done.
        """
        units = self.assigned_work.pop(node)
        left = [(unit, nodeid) for unit in units.values() for nodeid, done in unit.items() if not done]
        if not left:
            return None
        unit, ended = left[0]
        unit[ended] = True
        self.workqueue.update({name: unit for name, unit in units.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return ended


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByGroup:
    return ByGroup(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -SECONDS.get(group(item.nodeid.partition("::")[0]), 0))
