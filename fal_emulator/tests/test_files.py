"""Files: the token, the ways in, the address, who may read and for how long."""

import json
import time

import requests

from .emulator_process import wait_for


def token_of(emulator):
    reply = emulator.post("/storage/auth/token", params={"storage_type": "fal-cdn-v3"}, json={}).json()
    return {"Authorization": f"Bearer {reply['token']}"}


def fetch(url):
    """Anonymously, as the CDN serves it."""
    with requests.Session() as anonymous:
        return anonymous.get(url, timeout=60)


def upload(emulator, data=b"hello", **headers):
    reply = emulator.post("/files/upload", data=data, headers={**token_of(emulator), **headers})
    assert reply.status_code == 200, reply.text
    return reply.json()["access_url"]


def test_small_upload(emulator):
    """Bytes, type and name come back from an address that anybody may read."""
    url = upload(emulator, **{"Content-Type": "text/plain", "X-Fal-File-Name": "../a b.txt"})
    reply = fetch(url)

    assert url.startswith(f"{emulator.url}/files/b/")
    assert url.endswith("_.._a_b.txt")
    assert (
        reply.content,
        reply.headers["Content-Type"],
        reply.headers["Content-Length"],
    ) == (b"hello", "text/plain", "5")


def test_token(emulator):
    """Timezone-aware expiry, and the base URL under which the CDN is reached."""
    reply = emulator.post("/storage/auth/token", json={}).json()
    assert ("Bearer", emulator.url) == (reply["token_type"], reply["base_url"])
    assert reply["expires_at"].endswith("+00:00")
    real = emulator.post("/storage/auth/token", json={}, headers={"Host": "rest.fal.ai"}).json()
    assert real["base_url"] == "https://v3b.fal.media"


def test_the_key_does_not_open_the_cdn(emulator):
    """Uploads take the CDN's own token only; an altered one is refused."""
    assert emulator.post("/files/upload", data=b"x").status_code == 401
    altered = token_of(emulator)["Authorization"].replace(".", ".x")
    assert emulator.post("/files/upload", data=b"x", headers={"Authorization": altered}).status_code == 401
    late = "Bearer 1000000000." + token_of(emulator)["Authorization"].split(".")[1]
    assert emulator.post("/files/upload", data=b"x", headers={"Authorization": late}).status_code == 401
    with requests.Session() as anonymous:
        assert anonymous.post(f"{emulator.url}/storage/auth/token", timeout=60).status_code == 401


def test_multipart(emulator):
    """Parts in any order, etags in a header, completed in the order of their numbers."""
    headers = token_of(emulator)
    begun = emulator.post("/files/upload/multipart", headers={**headers, "X-Fal-File-Name": "big.bin"}).json()
    parts = []
    for number, data in ((3, b"three"), (1, b"one-"), (2, b"two-")):
        reply = emulator.put(
            f"{begun['access_url']}/multipart/{begun['uploadId']}/{number}", data=data, headers=headers
        )
        parts.append({"partNumber": number, "etag": reply.headers["etag"]})

    assert fetch(begun["access_url"]).status_code == 404
    complete = f"{begun['access_url']}/multipart/{begun['uploadId']}/complete"
    missing = [*parts, {"partNumber": 4, "etag": "x"}]
    assert emulator.post(complete, headers=headers, json={"parts": missing}).status_code == 400
    assert emulator.post(complete, headers=headers, json=["nonsense"]).status_code == 400
    assert emulator.post(complete, headers=headers, json={"parts": parts}).status_code == 200
    assert fetch(begun["access_url"]).content == b"one-two-three"
    assert emulator.post(complete, headers=headers, json={"parts": parts}).status_code == 404


def test_initiate(emulator):
    """The Python client's fallback is dead, as live; the JS client's way works."""
    refused = emulator.post("/storage/upload/initiate", params={"storage_type": "gcs"}, json={})
    assert (refused.status_code, refused.json()) == (400, {"detail": "Invalid storage type"})

    given = {"file_name": "a.png", "content_type": "image/png"}
    reply = emulator.post("/storage/upload/initiate", params={"storage_type": "fal-cdn-v3"}, json=given).json()
    assert emulator.put(reply["upload_url"], data=b"png").status_code == 200
    assert (
        (found := fetch(reply["file_url"])).content,
        found.headers["Content-Type"],
    ) == (b"png", "image/png")
    assert emulator.put(reply["upload_url"], data=b"again").status_code == 404


def test_initiated_multipart(emulator):
    """The JS client's way for large files: parts and the end are put between path and query, without any header."""
    given = {"file_name": "big.bin", "content_type": "application/x-big"}
    life = {"X-Fal-Object-Lifecycle": '{"initial_acl": {"default": "forbid"}}'}
    for headers, status in (({}, 200), (life, 403)):
        reply = emulator.post(
            "/storage/upload/initiate-multipart", params={"storage_type": "fal-cdn-v3"}, json=given, headers=headers
        ).json()
        path, query = reply["upload_url"].split("?")
        with requests.Session() as anonymous:
            assert anonymous.put(f"{path}/1", data=b"x", timeout=60).status_code == 401
            assert anonymous.put(f"{path}/1?seal=x", data=b"x", timeout=60).status_code == 401
            parts = [
                anonymous.put(f"{path}/{number}?{query}", data=data, timeout=60).json()
                for number, data in ((2, b"two"), (1, b"one-"))
            ]
            done = anonymous.post(f"{path}/complete?{query}", json={"parts": parts}, timeout=60)
        assert done.status_code == 200
        assert (found := fetch(reply["file_url"])).status_code == status
        assert (found.content == b"one-two") == (status == 200)
    assert emulator.post("/storage/upload/initiate-multipart", json=given).status_code == 400


def test_access_control(emulator):
    """forbid is 403, hide is 404, allow is open."""
    expected = {"allow": 200, "forbid": 403, "hide": 404}
    for decision, status in expected.items():
        preference = json.dumps({"initial_acl": {"default": decision}})
        assert status == fetch(upload(emulator, **{"X-Fal-Object-Lifecycle-Preference": preference})).status_code
    bad = emulator.post(
        "/files/upload", data=b"x", headers={**token_of(emulator), "X-Fal-Object-Lifecycle": '{"initial_acl": 1}'}
    )
    assert bad.status_code == 400


def test_produced_files_live_as_long_as_asked(make_emulator):
    """The lifecycle header of a submit covers what the request produces, on the emulator's clock."""
    emulator = make_emulator(time_scale=3600.0)  # an hour is a second
    preference = {"X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 1800}'}
    short, default = emulator.submit(headers=preference), emulator.submit()
    urls = [emulator.finish(job).json()["images"][0]["url"] for job in (short, default)]

    assert fetch(urls[1]).status_code == 200
    wait_for(lambda: fetch(urls[0]).status_code == 404, 3)
    assert fetch(urls[1]).status_code == 200


def test_produced_files_have_the_access_that_was_asked_for(emulator):
    """The header's access rule covers produced files, too."""
    forbidden = emulator.submit(headers={"X-Fal-Object-Lifecycle-Preference": '{"initial_acl": {"default": "forbid"}}'})

    assert fetch(emulator.finish(forbidden).json()["images"][0]["url"]).status_code == 403


def test_storage_settings(make_emulator):
    """The account's settings cover new files whose request says nothing; they are replaced whole, and kept."""
    emulator = make_emulator(time_scale=3600.0)  # an hour is a second
    assert emulator.get("/v1/storage/settings").json() == {"expiration_duration_seconds": None, "initial_acl": None}
    given = {"expiration_duration_seconds": 1800, "initial_acl": {"default": "hide", "rules": []}}
    assert given == emulator.put("/v1/storage/settings", json=given).json()
    assert fetch(upload(emulator)).status_code == 404
    own = '{"initial_acl": {"default": "allow"}, "expiration_duration_seconds": null}'
    kept = upload(emulator, **{"X-Fal-Object-Lifecycle-Preference": own})
    assert fetch(kept).status_code == 200

    emulator.put("/v1/storage/settings", json={"expiration_duration_seconds": 5400})
    short = upload(emulator)
    assert fetch(short).status_code == 200
    wait_for(lambda: fetch(short).status_code == 404)
    assert fetch(kept).status_code == 200
    for wrong in ({"expiration_duration_seconds": -1}, {"initial_acl": {"default": "maybe"}}):
        assert emulator.put("/v1/storage/settings", json=wrong).json()["error"]["type"] == "validation_error"
    emulator.stop()
    again = make_emulator().get("/v1/storage/settings").json()
    assert again == {"expiration_duration_seconds": 5400, "initial_acl": None}


def test_the_accounts_own_expiry(make_emulator):
    """Without a header the account's setting applies."""
    emulator = make_emulator(media_retention=0.3)
    url = upload(emulator)
    time.sleep(0.35)

    assert fetch(url).status_code == 404


def test_nothing_outside_the_folder(emulator):
    """No path leads out of the folder."""
    for path in ("../emulator.sqlite", "%2e%2e/emulator.sqlite", "/etc/passwd", "b/none/none_x.png"):
        assert fetch(f"{emulator.url}/files/{path}").status_code in (404, 405)


def test_body_limit(make_emulator):
    """A body over the limit is 413, in JSON, and nothing is kept."""
    emulator = make_emulator(max_body=1000)

    reply = emulator.submit_raw(data=b"x" * 2000)
    assert (reply.status_code, "detail" in reply.json()) == (413, True)
    assert emulator.ledger() == []
