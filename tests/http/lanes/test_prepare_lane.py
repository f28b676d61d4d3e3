"""Inputs are looked at before anything is paid: what is fit goes, what is not fails its edits, our troubles do not."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from PIL import Image
from sqlalchemy import Engine

from benchmarks.books import canonical_sha256
from intake.batch_actions import append, next_position, pause, resume, retry
from intake.batches import BatchHeader, create
from intake.manifest import read_objects
from models.input_claims import claim_inputs
from models.pauses import list_pauses
from models.transitions import cancel_batch
from storage.store import Storage
from tests.support.lane_runner import Emulator, LaneRunner, all_are, lane_runner, stand, wait_for
from tests.support.receiving import rows
from tests.support.servers import Peer, closed_port, serve
from tests.support.stores import ObjectStore
from worker.beat_scheduler import lanes_due
from worker.lanes.settle import settle_due

pytestmark = pytest.mark.usefixtures("balanced")
ALL_LANES = ("prepare", "submit", "poll", "download")


def image(colour: str = "red", size: int = 64, kind: str = "PNG") -> bytes:
    canvas = BytesIO()
    Image.new("RGB", (size, size), colour).save(canvas, kind)
    return canvas.getvalue()


def put(folder: Path, name: str, content: bytes, client: str = "local") -> str:
    """An object of a client, as another program puts it there; answers how an edit names it."""
    path = folder / "inputs" / client / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"storage://{name}"


def edit(*urls: str, **fields: object) -> dict[str, object]:
    return {"prompt": "A red hat", "image_urls": list(urls), **fields}


def hand_in(engine: Engine, edits: Sequence[object], **header: Any) -> UUID:
    with engine.begin() as connection:
        return create(connection, BatchHeader(**header), read_objects(edits)).batch_id


def prepare(engine: Engine, worker: LaneRunner, done: Callable[[], object]) -> None:
    worker.work_until(lambda: bool(done()), lanes=("prepare",))


def found(engine: Engine) -> dict[str, int]:
    """Inputs by state."""
    return dict(rows(engine, "SELECT state, count(*) FROM inputs GROUP BY state"))


def held(engine: Engine) -> list[tuple[Any, ...]]:
    return rows(engine, "SELECT inputs_ready_to FROM batches ORDER BY created_at")


def errors(engine: Engine) -> list[tuple[Any, ...]]:
    """Of edits, the type and the message of the last."""
    query = "SELECT position, errors -> -1 ->> 'type', errors -> -1 ->> 'message' FROM edits"
    return rows(engine, f"{query} WHERE errors <> '[]' ORDER BY position")


def due(engine: Engine) -> bool:
    with engine.connect() as connection:
        return lanes_due(connection)["prepare"]


@pytest.mark.parametrize("name", ["a.png", "holiday photos/Öl & 100%/a b+c?#.png", "%2e%2e/x.png"])
def test_object_reaches_the_provider_as_it_is(engine: Engine, emulator: Emulator, tmp_path: Path, name: str) -> None:
    """The bytes of the object named are what the provider was charged for, whatever its key is; lost replies match."""
    content = image()
    hand_in(engine, [edit(put(tmp_path, name, content)), edit("https://example.com/a.png")])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=2), lanes=ALL_LANES)

    ((arguments, seed, sent, request),) = rows(
        engine,
        "SELECT e.arguments, e.seed, s.sent_urls, s.request_id FROM edits e JOIN submissions s ON s.edit_id = e.id"
        " WHERE e.position = 0",
    )
    assert requests.get(sent["0"], timeout=60).content == content
    posted = {row["request_id"]: row["input_sha256"] for row in emulator.rows}
    assert posted[request] == canonical_sha256({**arguments, "image_urls": [sent["0"]], "seed": seed})
    assert arguments["image_urls"] == [f"storage://{name}"]
    assert rows(engine, "SELECT count(*) FROM submissions WHERE sent_urls IS NULL") == [(1,)]
    measured = "SELECT sha256, content_type, bytes, width, height FROM inputs"
    digest = hashlib.sha256(content).hexdigest()
    assert rows(engine, measured) == [(digest, "image/png", len(content), 64, 64)]


def test_nothing_is_written_or_asked_where_nothing_is_to_be_looked_at(
    engine: Engine, emulator: Emulator, tmp_path: Path
) -> None:
    """A batch of web URLs goes as it always did."""
    hand_in(engine, [edit("https://example.com/a.png")])
    assert (found(engine), held(engine), due(engine)) == ({}, [(None,)], False)
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=1))
    assert rows(engine, "SELECT sent_urls FROM submissions") == [(None,)]


def test_one_content_is_uploaded_once(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Many edits of several batches and clients share one content, at one time: the provider gets it once."""
    shared = put(tmp_path, "a.png", image())
    put(tmp_path, "other.png", image(), client="shop")
    hand_in(engine, [edit(shared, custom_id=f"e{n}") for n in range(40)])
    hand_in(engine, [edit(put(tmp_path, "b.png", image()))])
    hand_in(engine, [edit("storage://other.png")], client="shop")
    with lane_runner(engine, emulator, tmp_path) as worker:
        prepare(engine, worker, lambda: held(engine) == [(None,)] * 3)
    assert found(engine) == {"ready": 3}
    assert len({url for (url,) in rows(engine, "SELECT url FROM inputs")}) == 1
    assert rows(engine, "SELECT count(*) FROM uploads") == [(1,)]


def test_nobody_reaches_the_objects_of_another(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A client's name and an object's are no way out of the client's own folder."""
    for name in ("secret.png", "sub/secret.png"):
        put(tmp_path, name, image(), client="local")
    for client in ("../local", "shop", "local/sub", "LOCAL", "."):
        hand_in(engine, [edit("storage://secret.png")], client=client)
    with lane_runner(engine, emulator, tmp_path) as worker:
        prepare(engine, worker, lambda: stand(engine) == {"failed": 5})
    assert {type_ for _, type_, _ in errors(engine)} == {"input_unreachable"}


def test_refused_inputs_fail_their_edits_unpaid(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """One bad input of ten fails the edits that have it, with the reason, and no other; nothing of them is POSTed."""
    good = [put(tmp_path, f"{n}.png", image(size=64 + n)) for n in range(9)]
    empty, text = put(tmp_path, "empty.png", b""), put(tmp_path, "page.png", b"<html>no</html>")
    broken = put(tmp_path, "cut.png", image(size=200)[:-40])
    lines = [
        edit(*good, empty),
        edit(good[0]),
        edit(text),
        edit(good[1], broken),
        edit("storage://gone.png"),
        edit(empty),
    ]
    hand_in(engine, lines, tolerated_failures=20)
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=1, failed=5), lanes=ALL_LANES)

    assert [(position, type_) for position, type_, _ in errors(engine)] == [
        (0, "input_refused"),
        (2, "input_refused"),
        (3, "input_refused"),
        (4, "input_unreachable"),
        (5, "input_refused"),
    ]
    said = {position: message for position, _, message in errors(engine)}
    assert said[0] == "image 10: storage://empty.png is empty."
    assert said[3].startswith("image 2: storage://cut.png is cut short")
    assert said[4] == "image 1: There is no storage://gone.png."
    assert [row["charges"] for row in emulator.rows] == [1]
    assert rows(engine, "SELECT count(*) FROM submissions") == [(1,)]


def test_refused_inputs_count_as_failures(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A batch that tolerates none is ended by one."""
    hand_in(engine, [edit("storage://gone.png"), edit("https://example.com/a.png")], tolerated_failures=0)
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(lambda: stand(engine) == {"failed": 1, "cancelled": 1}, lanes=("prepare", "settle"))
    assert rows(engine, "SELECT broken_criterion FROM batches") == [("tolerated_failures",)]


def test_all_web_inputs_are_looked_at(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Reachable, an image by its bytes; a private address is refused, a dead host after three tries, others go on."""
    answers = {"/a.png": (200, image()), "/b": (200, b"%PDF-1.4"), "/gone.png": (404, b""), "/busy.png": (503, b"")}

    def script(peer: Peer) -> bool:
        assert peer.request is not None
        status, body = answers[peer.request.target]
        return peer.reply(status, body)

    with serve(script) as host, ExitStack() as stack:
        urls = [f"{host.url}{path}" for path in answers]
        urls += [
            f"http://127.0.0.1:{closed_port()}/a.png",
            f"http://localhost:{host.port}/a.png",
            f"{host.url}/a.png?x",
        ]
        answers["/a.png?x"] = answers["/a.png"]
        data = [data_uri(image()), data_uri(b"GIF89a, not")]
        hand_in(engine, [edit(url) for url in (*urls, *data)], check_inputs="all")
        worker = stack.enter_context(lane_runner(engine, emulator, tmp_path))
        prepare(engine, worker, lambda: held(engine) == [(None,)])

    assert found(engine) == {"ready": 3, "refused": 6}
    assert [(position, type_) for position, type_, _ in errors(engine)] == [
        (1, "input_refused"),
        (2, "input_unreachable"),
        (3, "input_unreachable"),
        (4, "input_unreachable"),
        (5, "input_refused"),
        (8, "input_refused"),
    ]
    said = {position: message for position, _, message in errors(engine)}
    assert "it is PDF" in said[1]
    assert "404" in said[2]
    assert "a private address" in said[5]
    assert stand(engine) == {"pending": 3, "failed": 6}
    tries = [request.target for request in host.received]
    assert (tries.count("/busy.png"), tries.count("/gone.png")) == (3, 1)
    assert rows(engine, "SELECT url, url_expires_at FROM inputs WHERE url IS NOT NULL") == []


def data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{b64encode(content).decode()}"


def test_edits_wait_in_their_order(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Nothing behind an input that waits is submitted, what stands before it is at once."""
    first = [edit("https://example.com/a.png")] * 3
    hand_in(engine, [*first, edit("storage://late.png"), *first])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, stored=3, pending=4))
        assert held(engine) == [(3,)]
        put(tmp_path, "late.png", image())
        worker.work_until(all_are(engine, stored=7), lanes=ALL_LANES)


def test_sample_pauses_a_batch_with_bad_inputs(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Nothing is submitted before a hundred were looked at; where some are bad the batch waits for a person."""
    bad = {"/0.png", "/7.png"}

    def script(peer: Peer) -> bool:
        assert peer.request is not None
        return peer.reply(404 if peer.request.target in bad else 200, b"" if peer.request.target in bad else image())

    with serve(script) as host, lane_runner(engine, emulator, tmp_path) as worker:
        batch_id = hand_in(engine, [edit(f"{host.url}/{n % 20}.png") for n in range(24)], check_inputs="sample")
        assert held(engine) == [(0,)]
        worker.work_until(lambda: held(engine) == [(None,)], lanes=("prepare", "submit"))
        assert (found(engine), stand(engine)) == ({"ready": 18, "refused": 2}, {"failed": 3, "pending": 21})
        ((reason,),) = rows(engine, "SELECT pause_reason FROM batches WHERE paused_at IS NOT NULL")
        assert reason.startswith("2 of 20 sampled inputs were refused, as: http://127.0.0.1")
        with engine.begin() as connection:
            resume(connection, batch_id)
        assert rows(engine, "SELECT paused_at, pause_reason FROM batches") == [(None, None)]
        worker.work_until(lambda: stand(engine) == {"failed": 3, "stored": 21}, lanes=ALL_LANES)


def test_sample_is_drawn_evenly_and_bounded(engine: Engine) -> None:
    """A hundred of five thousand, from everywhere in the batch."""
    hand_in(engine, [edit(f"https://example.com/{n}.png") for n in range(5200)], check_inputs="sample")
    ((number, first, last, held_from),) = rows(
        engine, "SELECT count(*), min(position), max(position), max(holds_from) FROM inputs WHERE sampled"
    )
    assert (number, held_from) == (100, 0)
    assert first < 1000
    assert last > 4000


def test_retry_looks_again(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Once the missing object is there, a retry of what failed for it goes through."""
    batch_id = hand_in(engine, [edit("storage://a.png"), edit(put(tmp_path, "b.png", image("blue")))])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(all_are(engine, failed=1, stored=1), lanes=ALL_LANES)
        put(tmp_path, "a.png", image())
        with engine.begin() as connection:
            assert retry(connection, batch_id, ["internal_server_error"]) == 0
            assert retry(connection, batch_id) == 1
        assert (held(engine), found(engine)) == ([(0,)], {"waiting": 1, "ready": 1})
        worker.work_until(all_are(engine, stored=2), lanes=ALL_LANES)


def test_append_while_inputs_are_looked_at(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """What is added waits for its own inputs, and fails for one that was refused before."""
    batch_id = hand_in(engine, [edit("https://example.com/a.png"), edit("storage://gone.png")])
    with lane_runner(engine, emulator, tmp_path) as worker:
        prepare(engine, worker, lambda: held(engine) == [(None,)])
        add(engine, batch_id, [edit("storage://gone.png"), edit(put(tmp_path, "new.png", image()))])
        assert held(engine) == [(2,)]
        worker.work_until(all_are(engine, failed=2, stored=2), lanes=ALL_LANES)
    assert rows(engine, "SELECT inputs, edit_count FROM batches") == [(2, 4)]


def add(engine: Engine, batch_id: UUID, edits: Sequence[object]) -> None:
    with engine.begin() as connection:
        first = next_position(connection, batch_id)
        append(connection, batch_id, read_objects(edits, first=first))


def test_store_that_is_away_refuses_nothing(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """The objects pause with the reason and use up no try; once the store is back all goes on by itself."""
    folder, away = tmp_path / "store", tmp_path / "away"
    name = put(folder, "a.png", image())
    folder.rename(away)
    folder.write_text("no folder")
    hand_in(engine, [edit(name)])
    with lane_runner(engine, emulator, folder) as worker:
        prepare(engine, worker, lambda: pauses(engine))
        assert pauses(engine) == [("prepare", "objects", "cannot_be_opened")]
        assert rows(engine, "SELECT state, attempt, errors FROM inputs") == [("waiting", 0, [])]
        folder.unlink()
        away.rename(folder)
        worker.work_until(all_are(engine, stored=1), lanes=ALL_LANES)
    assert pauses(engine) == []


def pauses(engine: Engine) -> list[tuple[str, str, str]]:
    with engine.connect() as connection:
        return [(pause.lane, pause.subject, pause.reason) for pause in list_pauses(connection)]


def test_upload_that_fails_refuses_nothing(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """Nor does a key that is refused; web URLs are looked at meanwhile."""
    with serve(lambda peer: peer.reply(200, image())) as host, serve(lambda peer: peer.reply(401)) as refuses:
        hand_in(engine, [edit(put(tmp_path, "a.png", image()))])
        with lane_runner(engine, emulator, tmp_path, fal_rest_url=refuses.url) as worker:
            prepare(engine, worker, lambda: pauses(engine))
            assert pauses(engine) == [("prepare", "objects", "invalid_key")]
            hand_in(engine, [edit(f"{host.url}/b.png")], check_inputs="all")
            prepare(engine, worker, lambda: found(engine) == {"ready": 1, "waiting": 1})
    with lane_runner(engine, emulator, tmp_path) as worker:
        prepare(engine, worker, lambda: found(engine) == {"ready": 2})
    assert pauses(engine) == []


def test_delivered_input_is_delivered_again_before_it_expires(
    engine: Engine, emulator: Emulator, tmp_path: Path
) -> None:
    """An edit that waited too long is not POSTed with an address that may lead nowhere, and nothing is lost by it."""
    name = put(tmp_path, "a.png", image())
    batch_id = hand_in(engine, [edit(name, custom_id=str(n)) for n in range(3)])
    with engine.begin() as connection:
        pause(connection, batch_id)
    with lane_runner(engine, emulator, tmp_path) as worker:
        prepare(engine, worker, lambda: found(engine) == {"ready": 1})
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE inputs SET url_expires_at = now() + interval '1 min'")
            connection.exec_driver_sql("UPDATE uploads SET expires_at = now() + interval '1 min', url = 'http://old'")
            resume(connection, batch_id)
        worker.work_until(lambda: found(engine) == {"waiting": 1}, lanes=("submit",))
        assert (held(engine), stand(engine), emulator.rows) == ([(0,)], {"pending": 3}, [])
        worker.work_until(all_are(engine, stored=3), lanes=ALL_LANES)
    assert [row["charges"] for row in emulator.rows] == [1] * 3
    assert rows(engine, "SELECT DISTINCT error_type FROM submissions WHERE outcome = 'rejected'") == [
        ("input_not_ready",)
    ]


def test_object_that_was_replaced_is_noticed(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """One batch never edits two images under one name: what was uploaded is what was looked at."""
    name = put(tmp_path, "a.png", image("red"))
    batch_id = hand_in(engine, [edit(name), edit(name, num_images=2)])
    with lane_runner(engine, emulator, tmp_path) as worker:
        prepare(engine, worker, lambda: found(engine) == {"ready": 1})
        with engine.begin() as connection:
            pause(connection, batch_id)
            connection.exec_driver_sql("UPDATE inputs SET url_expires_at = now()")
            connection.exec_driver_sql("DELETE FROM uploads")
            resume(connection, batch_id)
        put(tmp_path, "a.png", image("green"))
        worker.work_until(all_are(engine, failed=2), lanes=ALL_LANES)
    assert {message for *_, message in errors(engine)} == {
        "image 1: storage://a.png was replaced by another object since the batch began."
    }
    assert emulator.rows == []


def test_cancelled_batch_is_looked_at_no_more(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """And a batch of many holds up no other."""
    many = hand_in(engine, [edit(f"storage://{n}.png") for n in range(50)], priority=5)
    with engine.begin() as connection:
        cancel_batch(connection, many)
    assert not due(engine)
    hand_in(engine, [edit(put(tmp_path, "a.png", image()))])
    with lane_runner(engine, emulator, tmp_path) as worker:
        worker.work_until(lambda: stand(engine) == {"cancelled": 50, "stored": 1}, lanes=ALL_LANES)
        assert settle_due(engine, worker.settings) == 2
    assert found(engine) == {"waiting": 50, "ready": 1}


def test_turns_go_round_the_batches(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """A batch of one does not wait behind a batch of hundreds; `held` edits are no overdue work."""
    hand_in(engine, [edit(f"storage://{n}.png") for n in range(300)])
    hand_in(engine, [edit(put(tmp_path, "a.png", image()))])
    with engine.begin() as connection:
        claimed = claim_inputs(connection, limit=4, lease=30)
        assert len({due.batch_id for due in claimed}) == 2
        assert sorted(str(due.text) for due in claimed) == [f"storage://{name}.png" for name in ("0", "1", "2", "a")]
        assert not lanes_due(connection)["submit"]
        assert connection.exec_driver_sql("SELECT count(*) FROM overdue").scalar() == 0


def test_file_that_the_providers_storage_refuses(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """It fails its edits; a storage that takes no file pauses the objects, and no one file holds up all others."""
    hand_in(engine, [edit(put(tmp_path, "a.png", image()))])
    token = b'{"token": "t", "expires_at": "2099-01-01T00:00:00Z"}'

    def script(peer: Peer) -> bool:
        assert peer.request is not None
        return peer.reply(200, token) if "token" in peer.request.target else peer.reply(413)

    with serve(script) as cdn:
        urls = {"fal_rest_url": cdn.url, "fal_cdn_url": cdn.url}
        with lane_runner(engine, emulator, tmp_path, **urls) as worker:
            prepare(engine, worker, lambda: stand(engine) == {"failed": 1})
    assert [message for *_, message in errors(engine)] == [
        "image 1: storage://a.png was refused by the provider's storage (413)."
    ]
    assert pauses(engine) == []


def test_killed_in_the_middle(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """What a worker had claimed is taken by another, and edits whose inputs are all looked at do not wait for ever."""
    hand_in(engine, [edit(put(tmp_path, "a.png", image())), edit(put(tmp_path, "b.png", image("blue")))])
    with engine.begin() as connection:
        (due_input, _) = claim_inputs(connection, limit=2, lease=0.5)
        connection.exec_driver_sql(
            "UPDATE inputs SET state = 'ready', due_at = NULL, sha256 = '', url = 'http://127.0.0.1/a' WHERE id = %s",
            (due_input.id,),
        )
    wait_for(lambda: due(engine))
    with lane_runner(engine, emulator, tmp_path) as worker:
        prepare(engine, worker, lambda: held(engine) == [(None,)])
    assert (found(engine), due(engine)) == ({"ready": 2}, False)


def test_presigned_where_the_store_can(engine: Engine, emulator: Emulator, tmp_path: Path, s3: str) -> None:
    """The provider fetches from the store itself, by a URL without our keys; nothing is uploaded."""
    name, content = "holiday photos/Öl & 100%.png", image()
    Storage(s3).put(f"inputs/local/{name}", BytesIO(content))
    hand_in(engine, [edit(f"storage://{name}")])
    with lane_runner(engine, emulator, tmp_path, storage_url=s3, input_delivery="presign") as worker:
        worker.work_until(all_are(engine, stored=1), lanes=ALL_LANES)
    ((sent,),) = rows(engine, "SELECT sent_urls FROM submissions")
    assert requests.get(sent["0"], timeout=60).content == content
    assert rows(engine, "SELECT count(*) FROM uploads") == [(0,)]
    lasts = "SELECT round(extract(epoch FROM url_expires_at - now()) / 3600) FROM inputs"
    assert [int(hours) for (hours,) in rows(engine, lasts)] == [24]


def test_object_store_that_is_away(
    engine: Engine, emulator: Emulator, tmp_path: Path, s3: str, s3_server: ObjectStore
) -> None:
    """Nothing is refused for it; the first object that can be had again ends the pause."""
    Storage(s3).put("inputs/local/a.png", BytesIO(image()))
    hand_in(engine, [edit("storage://a.png"), edit("storage://gone.png")])
    with lane_runner(engine, emulator, tmp_path, storage_url=s3) as worker:
        s3_server.stop()
        try:
            prepare(engine, worker, lambda: pauses(engine))
            assert pauses(engine) == [("prepare", "objects", "unreachable")]
            assert rows(engine, "SELECT DISTINCT state, errors FROM inputs") == [("waiting", [])]
        finally:
            s3_server.start()
        worker.work_until(all_are(engine, stored=1, failed=1), lanes=ALL_LANES)
    assert pauses(engine) == []


def test_a_folder_signs_nothing(engine: Engine, emulator: Emulator, tmp_path: Path) -> None:
    """The setting is refused in one sentence."""
    with (
        pytest.raises(ValueError, match="a folder has no URLs that the provider could fetch"),
        lane_runner(engine, emulator, tmp_path, input_delivery="presign"),
    ):
        pass
