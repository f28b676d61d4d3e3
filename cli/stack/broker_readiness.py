"""When do the broker and the workers behind it answer? Apart, because it imports Celery, which few programs need."""

import redis

from cli.stack.readiness import QUESTION_TIMEOUT
from worker.broker import celery_client, redis_client


def redis_answers(url: str) -> bool:
    """Whether the broker answers."""
    try:
        with redis_client(url, timeout=QUESTION_TIMEOUT) as broker:
            return bool(broker.ping())
    except redis.RedisError:
        return False


class WorkersAnswer:
    """Whether all workers answer a ping through the broker; each has to answer once.

    A ping that is sent before a worker listens is lost on it, so the first are waited for briefly.
    """

    def __init__(self, redis_url: str, names: tuple[str, ...]) -> None:
        self._app = celery_client(redis_url)
        self._missing, self._all = set(names), len(names)
        self._reply_timeout = 0.1

    def __call__(self) -> bool:
        """Ask once; whether all of them have answered by now."""
        with self._app.connection_for_write(transport_options={"socket_timeout": QUESTION_TIMEOUT}) as connection:
            answers = self._app.control.broadcast(
                "ping", reply=True, timeout=self._reply_timeout, limit=self._all, connection=connection
            )
        self._missing -= {host.split("@")[0] for answer in answers or [] for host in answer}
        self._reply_timeout = min(1.5 * self._reply_timeout, QUESTION_TIMEOUT)
        return not self._missing
