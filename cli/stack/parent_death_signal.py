"""Ties a program to the life of its parent: when the parent dies, however hard, the program gets a signal.

Run as a file: `python parent_death_signal.py [--parent PID] [--user NAME] SIGNAL COMMAND…`. A command that begins with
`-m` is a Python module and runs in this same process, so that everything it forks ends with it too (a server
that forks its workers would otherwise leave them behind, still holding the port). Linux only; elsewhere the
command simply runs. It starts nothing by itself and stays free of imports of ours: it runs before everything.
"""

import argparse
import ctypes
import multiprocessing
import os
import pwd
import runpy
import shlex
import signal
import sys
from collections.abc import Callable, Sequence

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Numbers of prctl(2), from <linux/prctl.h>."""


def process_control() -> Callable[[int, int], int]:
    """prctl(2), looked up before any fork; nothing at all where there is no Linux."""
    if sys.platform != "linux":
        return lambda _option, _argument: 0
    prctl: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    return prctl


def become(user: str) -> None:
    """Drop root for `user`, for good."""
    account = pwd.getpwnam(user)
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def run(command: Sequence[str]) -> None:
    """Become `command`."""
    if command[0] != "-m":
        os.execvp(command[0], list(command))  # noqa: S606 - a list that we build; no shell wanted
    sys.path[0] = os.getcwd()  # what `python -m` would have put there, instead of this file's folder
    sys.argv = list(command[1:])
    if sys.platform == "linux":
        # from Python 3.14 on a server process would fork the workers: nothing ties that one to us
        multiprocessing.set_start_method("fork", force=True)
    _show(command[1:])
    runpy.run_module(command[1], run_name="__main__", alter_sys=True)


def _show(command: Sequence[str]) -> None:
    """Name this process after its command in the list of processes, where that can be done."""
    try:
        from setproctitle import setproctitle  # comes with the extra `local`
    except ImportError:
        return
    setproctitle(shlex.join(command))


def main(arguments: Sequence[str] | None = None) -> None:
    """Tie this process to its parent, then become the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int)
    parser.add_argument("--user")
    parser.add_argument("signal")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    number = signal.Signals[f"SIG{options.signal}"]
    prctl = process_control()
    if options.user:
        become(options.user)  # first: a change of user would take the signal away
    prctl(PR_SET_PDEATHSIG, number)
    if options.parent not in (None, os.getppid()):
        sys.exit("the parent died before the signal was set")
    os.register_at_fork(after_in_child=lambda: (prctl(PR_SET_PDEATHSIG, number), None)[1])
    run(options.command)


if __name__ == "__main__":
    main()
