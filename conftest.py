"""What holds for every test, of the product and of the emulator: a clean environment, an order, no time lost."""

import gc
import os
import signal
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

OURS = ("FAL_", "DARKROOM_", "OTEL_", "DATABASE_URL", "REDIS_URL", "STORAGE_URL", "PUBLIC_URL", "PGDATABASE", "PGHOST")
WAYS_OUT = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
TOGETHER = ("tests/browser/", "tests/stack/running/")
"""Folders whose files share a browser, or a stack."""
TAKES_MINUTES = ("tests/whole/", "tests/database/test_machine.py")
LONGEST_FIRST = (
    "tests/whole/test_chaos.py",
    "tests/whole/test_outages.py",
    "tests/stack/running/",
    "tests/browser/",
    "tests/stack/start/test_up.py",
    "tests/whole/test_crash.py",
    "tests/stack/commands/test_doctor.py",
    "tests/database/test_machine.py",
    "tests/whole/",
    "tests/http/intake/test_intake_openapi.py",
    "fal_emulator/tests/test_fault_choice.py",
    "tests/stack/",
    "fal_emulator/tests/",
    "tests/http/",
    "tests/database/",
)
"""Files and folders that a run begins with, in this order: some wait and some compute, so that two cores have always
something to do, and a process is never left over with a long one. The rest is short."""

# a busy machine is no fault of the code
hypothesis.settings.register_profile("darkroom", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("darkroom")


class Scheduling(LoadFileScheduling):
    """With several processes, the tests of one file stay together, and so do the files that share what is dear."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    def _assign_work_unit(self, node: Any) -> None:
        """A process always holds its next file in reserve: behind a test of minutes the last and shortest, else the
        whole run would end with a long one that waited there."""
        held = (name for tests in self.assigned_work.get(node, {}).values() for name, done in tests.items() if not done)
        if any(name.startswith(TAKES_MINUTES) for name in held):
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


gc.disable()  # until all tests are collected: next to nothing of what that makes is garbage


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest starts first; files stay as they are."""
    places = list(enumerate(LONGEST_FIRST))
    items.sort(key=lambda item: next((place for place, start in places if item.nodeid.startswith(start)), len(places)))


def pytest_collection_finish() -> None:
    """What was collected stays: looking for garbage need not look there again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """How tests are handed to the processes of `pytest -n`."""
    return Scheduling(config, log)


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> None:
    """No test sees the settings of the person who runs it."""
    for name in list(os.environ):
        if name.startswith(OURS) or name.upper() in WAYS_OUT:
            del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Ctrl-C reaches what the tests start, even where they themselves were started with it ignored (`nohup … &`)."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
