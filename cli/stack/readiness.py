"""When does a part of the stack answer? One question per part, each with its own short time limit.

The questions are the parts' own: a query, a PING, a health check, a ping through the broker. Nothing is taken for
running because its process exists.
"""

import time
from collections.abc import Callable

import psycopg
import redis
import requests
from psycopg import sql

from models.queries.health import CREATE_DATABASE, DATABASE_EXISTS
from worker.broker import celery_client, redis_client

QUESTION_TIMEOUT = 2.0
"""Seconds one question may take."""


def until(answers: Callable[[], bool], *, timeout: float, pause: float = 0.02) -> bool:
    """Ask until the answer is yes; False when the time is over."""
    deadline = time.monotonic() + timeout
    while not answers():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def ensure_database(url: str) -> bool:
    """Whether the embedded server answers; makes the URL's database unless it is there.

    Asked through the server's own database, which always exists.
    """
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    maintenance = psycopg.conninfo.make_conninfo(url, dbname="postgres", connect_timeout=int(QUESTION_TIMEOUT))
    try:
        with psycopg.connect(maintenance, autocommit=True) as connection:
            if not connection.execute(DATABASE_EXISTS, [name]).fetchone():
                connection.execute(sql.SQL(CREATE_DATABASE).format(sql.Identifier(str(name))))
    except psycopg.OperationalError:
        return False
    return True


def redis_answers(url: str) -> bool:
    """Whether the broker answers."""
    try:
        with redis_client(url, timeout=QUESTION_TIMEOUT) as broker:
            return bool(broker.ping())
    except redis.RedisError:
        return False


def http_answers(url: str) -> bool:
    """Whether a GET of `url` says 200."""
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no say on this machine
        try:
            return session.get(url, timeout=QUESTION_TIMEOUT).ok
        except requests.RequestException:
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
