"""The services that hand batches in and steer them, by every way that darkroom has, while its processes are killed.

A caller does what a careful one does: it asks again until it is answered, under the same idempotency key, or as the
same Celery task.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import requests
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from benchmarks.manifests import Manifest
from benchmarks.system import System
from cli.settings import environment

GIVE_UP_AFTER = 90.0
"""Seconds that a caller keeps asking."""
ASK_AGAIN_AFTER = 0.5
TASK_AGAIN_AFTER = 15.0
"""Seconds after which a task that was not heard of is sent again."""
Given = TypeVar("Given")


def insist(what: Callable[[], Given | None], doing: str) -> Given:
    """Ask until there is an answer.

    Raises:
        RuntimeError: there was none in time.
    """
    deadline = time.monotonic() + GIVE_UP_AFTER
    while (answer := what()) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no answer while {doing}")
        time.sleep(ASK_AGAIN_AFTER)
    return answer


class Callers:
    """Everybody who hands batches in."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.manifests: dict[str, Manifest] = {}
        """By name, as they were handed in."""

    def hand_in(self, manifest: Manifest) -> None:
        """By the way that the manifest names."""
        self.manifests[manifest.name] = manifest
        for content in manifest.files:
            insist(partial(self._post, "/v1/files", data=content), f"handing in a file of {manifest.name}")
        {"api": self._by_api, "csv": self._by_command, "task": self._by_task}[manifest.entrance](manifest)

    def _by_api(self, manifest: Manifest) -> None:
        header = f"{json.dumps({'name': manifest.name, **manifest.header})}\n"
        body = (header + manifest.jsonl()).encode()
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": manifest.name}
        insist(lambda: self._post("/v1/batches", data=body, headers=headers), f"handing in {manifest.name}")

    def _post(self, path: str, **more: Any) -> dict[str, Any] | None:
        """The API's answer; None where it should be asked again."""
        with requests.Session() as session:
            session.trust_env = False
            try:
                reply = session.post(self._system.intake + path, timeout=30, **more)
            except requests.RequestException:
                return None
        if reply.status_code == 409:
            return {"refused": reply.text}
        if 400 <= reply.status_code < 500 and reply.status_code != 429:
            raise RuntimeError(f"{path}: {reply.status_code} {reply.text[:300]}")
        return dict(reply.json()) if reply.ok else None

    def _by_command(self, manifest: Manifest) -> None:
        file = self._system.folder / f"{manifest.name}.csv"
        file.write_text(manifest.csv())
        options = ["--name", manifest.name, "--idempotency-key", manifest.name, "--json"]
        if url := manifest.header.get("notify_url"):
            options += ["--notify-url", url]
        command = [sys.executable, "-m", "cli.main", "submit", str(file), *options]

        def submit() -> str | None:
            variables = {**environment(), **self._system.variables()}
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=GIVE_UP_AFTER)
            return done.stdout if done.returncode == 0 else None

        insist(submit, f"submitting {file.name}")

    def _by_task(self, manifest: Manifest) -> None:
        """Without a key of its own: the task's id must do."""
        document = {"name": manifest.name, **manifest.header, "edits": manifest.lines}

        def send() -> bool | None:
            url = self._system.redis_url()
            try:
                with Celery(broker=url, backend=url) as broker:
                    broker.conf.broker_transport_options = {"socket_timeout": 5, "socket_connect_timeout": 5}
                    sending = {"queue": "intake", "task_id": manifest.name, "retry": False}
                    broker.send_task("darkroom.create_batch", [document], **sending)
            except (OperationalError, RedisError, OSError):
                return None
            deadline = time.monotonic() + TASK_AGAIN_AFTER
            while time.monotonic() < deadline:
                if self.batch_id(manifest.name):
                    return True
                time.sleep(ASK_AGAIN_AFTER)
            return None

        insist(send, f"sending the task {manifest.name}")

    def batch_id(self, name: str) -> str | None:
        """Of the batch of this name, once it is there."""
        try:
            with self._system.engine.connect() as connection:
                found = connection.exec_driver_sql("SELECT id::text FROM batches WHERE name = %s", (name,))
                return found.scalars().first()
        except DBAPIError:  # PostgreSQL is among those that are killed
            return None

    def steer(self, manifest: Manifest, action: str) -> None:
        """Cancel, pause, resume or retry it; a refusal (it is finished already) is an answer."""
        batch_id = insist(lambda: self.batch_id(manifest.name), f"looking for {manifest.name}")
        more: dict[str, Any] = {"json": {}} if action == "retry" else {}
        insist(lambda: self._post(f"/v1/batches/{batch_id}/{action}", **more), f"{action} of {manifest.name}")
