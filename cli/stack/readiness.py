"""When does a part of the stack answer? One question per part, each with its own short time limit.

The questions are the parts' own: a query, a health check; what is asked through the broker stands in
`broker_readiness.py`. Nothing is taken for running because its process exists.
"""

import time
from collections.abc import Callable

import psycopg
import requests
from psycopg import sql

from models.queries.health import CREATE_DATABASE, DATABASE_EXISTS

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


def http_answers(url: str) -> bool:
    """Whether a GET of `url` says 200."""
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no say on this machine
        try:
            return session.get(url, timeout=QUESTION_TIMEOUT).ok
        except requests.RequestException:
            return False
