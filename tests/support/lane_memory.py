"""One submit lane in a process of its own, which tells the most memory it ever had, in MiB.

`lane_memory.py DATABASE_URL QUEUE_URL BYTES_IN_HAND`
"""

import re
import sys
from pathlib import Path

from models.database import make_engine
from provider.queue_api import QueueAPI
from worker.dependencies import Dependencies
from worker.lanes import submit
from worker.settings import WorkerSettings


def most_memory() -> int:
    """MiB; unlike `ru_maxrss` it knows nothing of the process that started this one."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) // 1024


def main(database_url: str, queue_url: str, in_hand: str) -> None:
    submit.BODY_BYTES = int(in_hand)
    settings = WorkerSettings(
        database_url=database_url, redis_url="redis://127.0.0.1:1/0", fal_queue_url=queue_url, fal_key="a:b"
    )
    engine = make_engine(database_url, application="darkroom test", pool_size=2)
    queue = QueueAPI(queue_url, "a:b", start_timeout=600, submit_timeout=30)
    before = most_memory()
    made = 0
    dependencies = Dependencies()
    dependencies.settings, dependencies.engine, dependencies.queue = settings, engine, queue
    while tried := submit.SubmitLane(dependencies).take_turn(lambda: True):
        made += tried
    engine.dispose()
    print(made, before, most_memory())


if __name__ == "__main__":
    main(*sys.argv[1:])
