"""Another service on the same broker: it knows the task's name and the README, and nothing of our code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from benchmarks.system import System
from tests.whole.conftest import IMAGE, Start, count, finish, wait_for

README = Path(__file__).parents[2] / "README.md"
LINE = {"prompt": "A red hat", "image_urls": [IMAGE]}


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file is away, the next worker that has written a batch dies before it says so."""
    flag = tmp_path_factory.mktemp("crash") / "after_create"
    flag.touch()
    return flag


@pytest.fixture(scope="module")
def system(start: Start, crash: Path) -> System:
    """One system for the file."""
    return start(DARKROOM_CRASH_AT=f"after_create:{crash}")


def ask(system: System, document: object) -> Any:
    with Celery(broker=system.redis_url(), backend=system.redis_url()) as broker:
        return broker.send_task("darkroom.create_batch", [document], queue="intake").get(timeout=60)


def test_readme_example(system: System, tmp_path: Path) -> None:
    """The README's code, run as it stands but for the broker's port and an image that can be fetched."""
    [code] = [code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "send_task" in code]
    script = tmp_path / "service.py"
    code = code.replace("redis://127.0.0.1:6379/0", system.redis_url()).replace("https://example.com/a.png", IMAGE)
    script.write_text(code)
    first, second = (
        subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=90, check=True) for _ in "12"
    )
    assert "'edits': 1" in first.stdout
    assert re.findall(r"'batch_id': '([^']+)'", first.stdout) == re.findall(r"'batch_id': '([^']+)'", second.stdout)
    finish(system)


def test_manifest_in_storage(system: System) -> None:
    """A large batch need not pass through the broker: JSONL or CSV under the store's own URL or as a key of it."""
    images = system.home / "images"
    (images / "manifests").mkdir(parents=True)
    (images / "manifests" / "a.jsonl").write_text("\n".join([json.dumps(LINE)] * 3))
    (images / "manifests" / "b.csv").write_text(f'prompt,image_urls\nx,"{IMAGE}"\n')
    assert ask(system, {"manifest": "manifests/a.jsonl"})["edits"] == 3
    assert ask(system, {"manifest": f"{images.as_uri()}/manifests/b.csv"})["edits"] == 1
    shutil.rmtree(images / "manifests")
    finish(system)


def test_what_is_wrong_comes_back(system: System) -> None:
    """Every faulty line in one error; nothing is written; a path out of the store leads nowhere."""
    with pytest.raises(Exception, match=r"line 2: promt: is not a known field; did you mean prompt\?"):
        ask(system, {"edits": [LINE, {"promt": "x", "image_urls": [IMAGE]}]})
    with pytest.raises(Exception, match="either a list of edits or a manifest"):
        ask(system, {"name": "x"})
    for manifest in ("manifests/none.jsonl", "../stack.env", "/etc/passwd", "file:///etc/passwd"):
        with pytest.raises(Exception, match=r"(There is no|cannot be read)"):
            ask(system, {"manifest": manifest})


def test_faulty_lines_may_be_skipped(system: System) -> None:
    """The answer counts them."""
    answer = ask(system, {"edits": [LINE, {}], "on_invalid": "skip"})
    assert (answer["edits"], answer["skipped"]) == (2, 1)


def test_message_that_is_delivered_again_buys_nothing(system: System, crash: Path) -> None:
    """Its worker is killed between commit and acknowledgement: the message comes again and answers the batch that is
    there. The same document in a message of its own is an order of its own."""
    document = {"edits": [LINE]}
    crash.unlink()
    with Celery(broker=system.redis_url(), backend=system.redis_url()) as broker:
        broker.send_task("darkroom.create_batch", [document], queue="intake", task_id="order-8")
        wait_for(crash.exists, "the worker was not killed")
        again = broker.send_task("darkroom.create_batch", [document], queue="intake", task_id="order-8")
        answer = again.get(timeout=60)
        other = broker.send_task("darkroom.create_batch", [document], queue="intake").get(timeout=60)

    assert count(system, "SELECT count(*) FROM batches WHERE idempotency_key = 'celery-task:order-8'") == 1
    assert count(system, f"SELECT count(*) FROM batches WHERE id = '{answer['batch_id']}'") == 1
    assert other["batch_id"] != answer["batch_id"]
    finish(system, states={"stored", "failed"})  # failed: the faulty line of the test before


def test_key_of_ones_own_cannot_pass_for_a_message(system: System) -> None:
    """Nobody takes the place of another caller's message."""
    with pytest.raises(Exception, match="must not begin with celery-task:"):
        ask(system, {"edits": [LINE], "idempotency_key": "celery-task:order-8"})
