"""Have the provider deliver callbacks again, nearly all of them faulty, beside everything else (`make soak`)."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests

THREADS = 4
TAKEN_FROM = 500
"""Requests among which it draws: the latest that have ended."""
OWED_MAX = 1000
FAULTY = {
    "wrong_key": 0.15,
    "stale_timestamp": 0.2,
    "tampered_body": 0.2,
    "other_user": 0.15,
    "null_payload": 0.3,
    "null_error": 0.3,
    "mismatched_id": 0.4,
}
"""What is drawn for an attempt while it hammers; they follow one another, so the rates are those of what is left."""


class Hammer:
    """Asks for so many deliveries a second until it is stopped; `sent` counts them."""

    def __init__(self, provider: str, dice: random.Random, per_second: int) -> None:
        self._provider, self._dice, self._pace = provider, dice, per_second
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def start(self) -> None:
        """Begin, if anything is asked for."""
        if self._pace:
            self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def _run(self) -> None:
        with requests.Session() as session, ThreadPoolExecutor(THREADS) as threads:
            session.trust_env = False
            after = 0
            recent: list[str] = []
            while not self._over.is_set():
                began = time.monotonic()
                page = session.get(f"{self._provider}/_emulator/ledger", params={"after": after}, timeout=30).json()
                after = page["rows"][-1]["seq"] if page["rows"] else after
                recent = (recent + [row["request_id"] for row in page["rows"] if row["webhook_url"]])[-TAKEN_FROM:]
                if recent and self._owed(session) < OWED_MAX:
                    chosen = self._dice.choices(recent, k=self._pace)
                    self.sent += sum(threads.map(lambda request_id: self._again(session, request_id), chosen))
                self._over.wait(max(0.0, 1.0 - (time.monotonic() - began)))

    def _owed(self, session: requests.Session) -> int:
        """Deliveries that the receiver has not taken yet; more than it can take are of no use."""
        counts = session.get(f"{self._provider}/_emulator/state", timeout=30).json()["counts"]
        return int(counts["webhooks_owed"])

    def _again(self, session: requests.Session, request_id: str) -> bool:
        try:
            return session.post(f"{self._provider}/_emulator/redeliver/{request_id}", timeout=30).status_code == 202
        except requests.RequestException:
            return False
