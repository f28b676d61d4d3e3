"""One broker, two spellings: Celery and the Redis client write the address of a Unix socket differently.

Settings hold Celery's spelling, `redis+socket:///path?virtual_host=0`; the client reads `unix:///path?db=0`. An
address with a host (`redis://`, `rediss://`) is the same for both.
"""

from urllib.parse import parse_qsl, urlencode

CELERY_SOCKET, CLIENT_SOCKET = "redis+socket://", "unix://"
SCHEMES = ("redis://", "rediss://", CELERY_SOCKET, CLIENT_SOCKET)


def celery_url(url: str) -> str:
    """The address as Celery takes it, for its broker and its results."""
    return _respelled(url, CLIENT_SOCKET, CELERY_SOCKET, "db", "virtual_host")


def client_url(url: str) -> str:
    """The address as `redis.Redis.from_url` takes it."""
    return _respelled(url, CELERY_SOCKET, CLIENT_SOCKET, "virtual_host", "db")


def _respelled(url: str, scheme: str, other: str, database: str, other_database: str) -> str:
    if not url.startswith(scheme):
        return url
    path, _, query = url.removeprefix(scheme).partition("?")
    pairs = [(other_database if name == database else name, value) for name, value in parse_qsl(query)]
    return f"{other}{path}" + (f"?{urlencode(pairs)}" if pairs else "")
