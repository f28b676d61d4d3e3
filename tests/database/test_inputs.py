"""Which inputs of a batch are looked at, which edits wait for them, and what counts as the same batch."""

import hashlib
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import Connection, Engine

from cli.batches.local_files import Manifest
from intake.batch_actions import append, next_position
from intake.batches import ADDED_LATER, BatchHeader, IdempotencyConflict, create
from intake.insert_edits import as_json
from intake.manifest import read_objects
from models.due_work import EDITS_DUE, INPUTS_DUE, which_hold
from models.input_claims import Kind, claim_inputs
from models.retention import prune_batches
from models.transitions import cancel_batch, retry_failed, settle_batches
from models.transitions.held_edits import let_edits_go
from models.transitions.inputs import (
    InputFault,
    NeededInput,
    ReadyInput,
    look_again,
    record_input_faults,
    record_ready_inputs,
)
from tests.support.command_line import CommandLine
from tests.support.factories import claim, unbalanced
from tests.support.locks import wait_for_a_lock


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, database_url: str
) -> CommandLine:
    return CommandLine(monkeypatch, capsys, tmp_path, DATABASE_URL=database_url)


def edit(*urls: str, **fields: object) -> dict[str, object]:
    return {"prompt": "A red hat", "image_urls": list(urls), **fields}


def hand_in(connection: Connection, edits: Sequence[object], **header: object) -> UUID:
    return create(connection, BatchHeader(**header), read_objects(edits)).batch_id  # type: ignore[arg-type]


def held(connection: Connection) -> list[int | None]:
    rows = connection.exec_driver_sql("SELECT inputs_ready_to FROM batches ORDER BY created_at")
    return list(rows.scalars())


def end_inputs(connection: Connection, *, refused: Sequence[str] = (), limit: int = 100) -> None:
    """Look at what is due: all are fit, but these."""
    for due in claim_inputs(connection, limit=limit, lease=60):
        if due.text in refused:
            record_input_faults(connection, [InputFault(due.id, "input_refused", f"{due.text} is no image.")])
        else:
            record_ready_inputs(connection, [ready(due.id, of_store=due.host is None)])


def ready(input_id: int, *, of_store: bool) -> ReadyInput:
    url = f"https://cdn.example/{input_id}" if of_store else None
    return ReadyInput(input_id, "0" * 64, "image/png", 1, 9, 9, url, 3600.0 if of_store else None)


def states(connection: Connection) -> list[str]:
    return list(connection.exec_driver_sql("SELECT state FROM edits ORDER BY batch_id, position").scalars())


def test_rows_of_a_batch(engine: Engine) -> None:
    """One for each distinct input, where it stands first; of a batch that asks for no look only the store's."""
    edits = [
        edit("https://a.example:8/x", "storage://k"),
        edit("storage://k", "https://a.example:8/x", "data:image/png;base64,QQ=="),
    ]
    query = "SELECT position, number, holds_from, host, sampled FROM inputs ORDER BY batch_id, position, number"
    for check, expected in {
        "none": [(0, 1, 0, None, False)],
        "all": [(0, 0, 0, "a.example:8", False), (0, 1, 0, None, False), (1, 2, 1, "", False)],
        "sample": [(0, 0, 0, "a.example:8", True), (0, 1, 0, None, False), (1, 2, 0, "", True)],
    }.items():
        with engine.connect() as connection:
            hand_in(connection, edits, check_inputs=check)
            assert [tuple(row) for row in connection.exec_driver_sql(query)] == expected
            assert held(connection) == [0]
            assert connection.exec_driver_sql("SELECT inputs FROM batches").scalar() == len(expected)


def test_nothing_behind_a_waiting_input_is_claimed(engine: Engine) -> None:
    """Neither by the submit lane nor as work that is overdue; and once it was looked at everything is."""
    with engine.connect() as connection:
        batch_id = hand_in(connection, [edit("https://e.example/a"), edit("storage://k"), edit("https://e.example/a")])
        assert [one.edit_id for one in claim(connection)] == [
            connection.exec_driver_sql("SELECT id FROM edits WHERE position = 0").scalar()
        ]
        assert which_hold(connection, {"edits": EDITS_DUE, "inputs": INPUTS_DUE}) == {"edits": False, "inputs": True}
        assert not let_edits_go(connection, batch_id)
        assert held(connection) == [1]
        end_inputs(connection)
        let_edits_go(connection, batch_id)
        assert held(connection) == [None]
        assert which_hold(connection, {"edits": EDITS_DUE, "inputs": INPUTS_DUE}) == {"edits": True, "inputs": False}
        assert len(claim(connection)) == 2


def test_edits_with_refused_inputs_fail_step_by_step(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those far behind the first that has it; in steps, of which each leaves the accounts balanced."""
    monkeypatch.setattr("models.transitions.held_edits.EDITS_AT_ONCE", 4)
    with engine.connect() as connection:
        edits = [edit("https://e.example/bad" if n % 5 == 0 else f"https://e.example/{n}") for n in range(20)]
        batch_id = hand_in(connection, edits, check_inputs="all")
        end_inputs(connection, refused=["https://e.example/bad"])
        steps = [held(connection)[0]]
        while let_edits_go(connection, batch_id):
            steps.append(held(connection)[0])
            assert unbalanced(connection) == []
        assert steps == [0, 4, 8, 12, 16]
        assert held(connection) == [None]
        assert [n for n, state in enumerate(states(connection)) if state == "failed"] == [0, 5, 10, 15]
        counted = "SELECT failed, skipped FROM batch_progress"
        assert tuple(connection.exec_driver_sql(counted).one()) == (4, 0)


def test_images_in_the_edits_themselves_are_compared(engine: Engine) -> None:
    """The same data URI, refused once, fails every edit that has it."""
    bad, good = "data:image/png;base64,QQ==", "data:image/png;base64,QUE="
    with engine.connect() as connection:
        batch_id = hand_in(connection, [edit(bad), edit(good), edit(good, bad)], check_inputs="all")
        end_inputs(connection, refused=[bad])
        while let_edits_go(connection, batch_id):
            pass
        assert states(connection) == ["failed", "pending", "failed"]


def test_append_is_not_let_go_unseen(engine: Engine) -> None:
    """While edits are being added, whoever lets the others go waits, and then sees what the new ones wait for."""
    with engine.begin() as connection:
        batch_id = hand_in(connection, [edit("storage://a")])
        end_inputs(connection)

    def let_go() -> None:
        with engine.begin() as connection:
            let_edits_go(connection, batch_id)

    with engine.begin() as connection:
        first = next_position(connection, batch_id)
        append(connection, batch_id, read_objects([edit("https://e.example/b"), edit("storage://c")], first=first))
        thread = threading.Thread(target=let_go)
        thread.start()
        wait_for_a_lock(engine, thread)
        assert thread.is_alive()
    thread.join(60)
    with engine.connect() as connection:
        assert held(connection) == [1]
        let_edits_go(connection, batch_id)
        assert held(connection) == [2]


def test_retry_is_not_let_go_unseen(engine: Engine) -> None:
    """The same while failed edits are being retried, whose inputs are to be looked at again."""
    with engine.begin() as connection:
        batch_id = hand_in(connection, [edit("https://e.example/a"), edit("https://e.example/b")], check_inputs="all")
        end_inputs(connection, refused=["https://e.example/a"])
        let_edits_go(connection, batch_id)
        connection.exec_driver_sql("UPDATE batches SET inputs_ready_to = 0")  # as while the next step is to come

    def let_go() -> None:
        with engine.begin() as connection:
            let_edits_go(connection, batch_id)

    with engine.begin() as connection:
        assert retry_failed(connection, batch_id) == 1
        thread = threading.Thread(target=let_go)
        thread.start()
        wait_for_a_lock(engine, thread)
        assert thread.is_alive()
    thread.join(60)
    with engine.connect() as connection:
        assert held(connection) == [0]


def test_looking_again_holds_edits_back(engine: Engine) -> None:
    """From the edit on that could not be submitted, whatever was let go before."""
    with engine.connect() as connection:
        batch_id = hand_in(connection, [edit("storage://a"), edit("storage://b"), edit("storage://a")])
        end_inputs(connection)
        let_edits_go(connection, batch_id)
        digest = hashlib.sha256(b"storage://a").digest()
        look_again(connection, [NeededInput(batch_id, digest, 2, 0)], needed_for=900)
        assert held(connection) == [2]
        query = "SELECT state, holds_from, url FROM inputs ORDER BY position"
        found = connection.exec_driver_sql(query).all()
        assert [tuple(row)[:2] for row in found] == [("waiting", 2), ("ready", 1)]
        look_again(connection, [NeededInput(batch_id, digest, 0, 0)], needed_for=7200)
        assert held(connection) == [0]
        assert connection.exec_driver_sql("SELECT count(*) FROM inputs WHERE state = 'waiting'").scalar() == 2


def test_paused_objects_hold_up_no_web_input(engine: Engine) -> None:
    """Each kind may be claimed by itself, and hosts that have no place are left out."""
    with engine.connect() as connection:
        urls = ["storage://a", "https://one.example/a", "https://two.example/a", "data:image/png;base64,QQ=="]
        hand_in(connection, [edit(url) for url in urls], check_inputs="all")
        assert [due.text for due in claim_inputs(connection, limit=9, lease=60, kinds={Kind.OBJECT})] == urls[:1]
        found = claim_inputs(connection, limit=9, lease=60, kinds={Kind.WEB}, not_from=["one.example"])
        assert sorted(str(due.text) for due in found) == sorted(urls[2:])


def test_long_inputs_are_read_by_themselves(engine: Engine) -> None:
    """A claim of many holds no megabytes."""
    with engine.connect() as connection:
        hand_in(connection, [edit(f"data:image/png;base64,{'A' * 40_000}")], check_inputs="all")
        (due,) = claim_inputs(connection, limit=9, lease=60)
        assert (due.text, due.host) == (None, "")


def test_inputs_of_a_pruned_batch_go(engine: Engine) -> None:
    """With its edits."""
    with engine.connect() as connection:
        batch_id = hand_in(connection, [edit(f"storage://{n}") for n in range(3)])
        cancel_batch(connection, batch_id)
        settle_batches(connection)
        connection.exec_driver_sql("UPDATE batches SET audited_at = finished_at")
        while prune_batches(connection, -1.0).more:
            pass
        assert connection.exec_driver_sql("SELECT count(*) FROM inputs").scalar() == 0
        assert connection.exec_driver_sql("SELECT prune_ended_at IS NOT NULL FROM batches").scalar()


def test_a_batch_of_a_release_before_is_the_same(engine: Engine) -> None:
    """What is said by nobody is no part of a batch's content: its idempotency key goes on to find it."""
    with engine.connect() as connection:
        hand_in(connection, [edit("https://e.example/a")], name="n")
        about = BatchHeader(name="n").model_dump(mode="json", exclude={"client", "idempotency_key", *ADDED_LATER})
        text = f"{as_json(about)}\n {as_json(edit('https://e.example/a'))}"
        expected = hashlib.sha256(text.encode()).hexdigest()
        assert connection.exec_driver_sql("SELECT content_sha256 FROM batches").scalar() == expected


def test_uploaded_file_counts_by_its_content(engine: Engine, tmp_path: Path) -> None:
    """Uploaded again under another URL it is the same batch; another content is not, nor was it before an upgrade."""
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    line = as_json(edit("a.png")).encode()
    header = BatchHeader(idempotency_key="k")

    def submit(url: str) -> bool:
        manifest = Manifest(BytesIO(line), tmp_path)
        manifest.look_through(on_invalid="fail")
        return create(connection, header, manifest.entries({"a.png": url})).existing

    with engine.connect() as connection:
        assert [submit("https://cdn.example/1"), submit("https://cdn.example/2")] == [False, True]
        of_before = f"{as_json(header.model_dump(mode='json', exclude={'client', 'idempotency_key', *ADDED_LATER}))}"
        of_before += f"\n {as_json(edit('https://cdn.example/1'))}"
        sha256 = hashlib.sha256(of_before.encode()).hexdigest()
        connection.exec_driver_sql("UPDATE batches SET content_sha256 = %s", (sha256,))
        assert submit("https://cdn.example/1")
        Image.new("RGB", (33, 33)).save(tmp_path / "a.png")
        with pytest.raises(IdempotencyConflict):
            submit("https://cdn.example/2")


def test_status_says_what_a_batch_waits_for(engine: Engine, run_cli: CommandLine) -> None:
    """How far the look at its inputs is, and why it was paused."""
    with engine.begin() as connection:
        hand_in(connection, [edit("storage://a"), edit("storage://b")], name="n")
        end_inputs(connection, limit=1)
    assert "waits for its inputs: 1 of 2 looked at" in run_cli("status", "last").out
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE batches SET paused_at = now(), pause_reason = '2 of 3 were refused'")
    assert "paused" in run_cli("status", "last").out
    assert "2 of 3 were refused" in run_cli("status", "last").out
    assert run_cli("status", "last", "--json").json["inputs_waiting"] == 1
