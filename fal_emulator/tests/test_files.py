"""Files: the token, the ways in, the address, who may read and for how long."""

import json
import time

import requests

from .emulator_process import wait_for


def token_of(standin):
    reply = standin.post("/storage/auth/token", params={"storage_type": "fal-cdn-v3"}, json={}).json()
    return {"Authorization": f"Bearer {reply['token']}"}


def fetch(url):
    """Anonymously, as the CDN serves it."""
    with requests.Session() as anonymous:
        return anonymous.get(url, timeout=10)


def upload(standin, data=b"hello", **headers):
    reply = standin.post("/files/upload", data=data, headers={**token_of(standin), **headers})
    assert reply.status_code == 200, reply.text
    return reply.json()["access_url"]


def test_small_upload(standin):
    """Bytes, type and name come back from an address that anybody may read."""
    url = upload(standin, **{"Content-Type": "text/plain", "X-Fal-File-Name": "../a b.txt"})
    reply = fetch(url)

    assert url.startswith(f"{standin.url}/files/b/")
    assert url.endswith("_.._a_b.txt")
    assert (
        reply.content,
        reply.headers["Content-Type"],
        reply.headers["Content-Length"],
    ) == (b"hello", "text/plain", "5")


def test_token(standin):
    """Timezone-aware expiry, and the base URL under which the CDN is reached."""
    reply = standin.post("/storage/auth/token", json={}).json()
    assert ("Bearer", standin.url) == (reply["token_type"], reply["base_url"])
    assert reply["expires_at"].endswith("+00:00")
    real = standin.post("/storage/auth/token", json={}, headers={"Host": "rest.fal.ai"}).json()
    assert real["base_url"] == "https://v3b.fal.media"


def test_the_key_does_not_open_the_cdn(standin):
    """Uploads take the CDN's own token only; an altered one is refused."""
    assert standin.post("/files/upload", data=b"x").status_code == 401
    altered = token_of(standin)["Authorization"].replace(".", ".x")
    assert standin.post("/files/upload", data=b"x", headers={"Authorization": altered}).status_code == 401
    late = "Bearer 1000000000." + token_of(standin)["Authorization"].split(".")[1]
    assert standin.post("/files/upload", data=b"x", headers={"Authorization": late}).status_code == 401
    with requests.Session() as anonymous:
        assert anonymous.post(f"{standin.url}/storage/auth/token", timeout=5).status_code == 401


def test_multipart(standin):
    """Parts in any order, etags in a header, completed in the order of their numbers."""
    headers = token_of(standin)
    begun = standin.post("/files/upload/multipart", headers={**headers, "X-Fal-File-Name": "big.bin"}).json()
    parts = []
    for number, data in ((3, b"three"), (1, b"one-"), (2, b"two-")):
        reply = standin.put(f"{begun['access_url']}/multipart/{begun['uploadId']}/{number}", data=data, headers=headers)
        parts.append({"partNumber": number, "etag": reply.headers["etag"]})

    assert fetch(begun["access_url"]).status_code == 404
    complete = f"{begun['access_url']}/multipart/{begun['uploadId']}/complete"
    missing = [*parts, {"partNumber": 4, "etag": "x"}]
    assert standin.post(complete, headers=headers, json={"parts": missing}).status_code == 400
    assert standin.post(complete, headers=headers, json=["nonsense"]).status_code == 400
    assert standin.post(complete, headers=headers, json={"parts": parts}).status_code == 200
    assert fetch(begun["access_url"]).content == b"one-two-three"
    assert standin.post(complete, headers=headers, json={"parts": parts}).status_code == 404


def test_initiate(standin):
    """The Python client's fallback is dead, as live; the JS client's way works."""
    refused = standin.post("/storage/upload/initiate", params={"storage_type": "gcs"}, json={})
    assert (refused.status_code, refused.json()) == (400, {"detail": "Invalid storage type"})

    given = {"file_name": "a.png", "content_type": "image/png"}
    reply = standin.post("/storage/upload/initiate", params={"storage_type": "fal-cdn-v3"}, json=given).json()
    assert standin.put(reply["upload_url"], data=b"png").status_code == 200
    assert (
        (found := fetch(reply["file_url"])).content,
        found.headers["Content-Type"],
    ) == (b"png", "image/png")
    assert standin.put(reply["upload_url"], data=b"again").status_code == 404


def test_initiated_multipart(standin):
    """The JS client's way for large files: parts and the end are put between path and query, without any header."""
    given = {"file_name": "big.bin", "content_type": "application/x-big"}
    life = {"X-Fal-Object-Lifecycle": '{"initial_acl": {"default": "forbid"}}'}
    for headers, status in (({}, 200), (life, 403)):
        reply = standin.post(
            "/storage/upload/initiate-multipart", params={"storage_type": "fal-cdn-v3"}, json=given, headers=headers
        ).json()
        path, query = reply["upload_url"].split("?")
        with requests.Session() as anonymous:
            assert anonymous.put(f"{path}/1", data=b"x", timeout=5).status_code == 401
            assert anonymous.put(f"{path}/1?seal=x", data=b"x", timeout=5).status_code == 401
            parts = [
                anonymous.put(f"{path}/{number}?{query}", data=data, timeout=5).json()
                for number, data in ((2, b"two"), (1, b"one-"))
            ]
            done = anonymous.post(f"{path}/complete?{query}", json={"parts": parts}, timeout=5)
        assert done.status_code == 200
        assert (found := fetch(reply["file_url"])).status_code == status
        assert (found.content == b"one-two") == (status == 200)
    assert standin.post("/storage/upload/initiate-multipart", json=given).status_code == 400


def test_access_control(standin):
    """forbid is 403, hide is 404, allow is open."""
    expected = {"allow": 200, "forbid": 403, "hide": 404}
    for decision, status in expected.items():
        preference = json.dumps({"initial_acl": {"default": decision}})
        assert status == fetch(upload(standin, **{"X-Fal-Object-Lifecycle-Preference": preference})).status_code
    bad = standin.post(
        "/files/upload", data=b"x", headers={**token_of(standin), "X-Fal-Object-Lifecycle": '{"initial_acl": 1}'}
    )
    assert bad.status_code == 400


def test_produced_files_live_as_long_as_asked(make_standin):
    """The lifecycle header of a submit covers what the request produces, on the emulator's clock."""
    standin = make_standin(time_scale=3600.0)  # an hour is a second
    preference = {"X-Fal-Object-Lifecycle-Preference": '{"expiration_duration_seconds": 1800}'}
    short, default = standin.submit(headers=preference), standin.submit()
    urls = [standin.finish(job).json()["images"][0]["url"] for job in (short, default)]

    assert fetch(urls[1]).status_code == 200
    wait_for(lambda: fetch(urls[0]).status_code == 404, 3)
    assert fetch(urls[1]).status_code == 200


def test_produced_files_have_the_access_that_was_asked_for(standin):
    """The header's access rule covers produced files, too."""
    forbidden = standin.submit(headers={"X-Fal-Object-Lifecycle-Preference": '{"initial_acl": {"default": "forbid"}}'})

    assert fetch(standin.finish(forbidden).json()["images"][0]["url"]).status_code == 403


def test_storage_settings(make_standin):
    """The account's settings cover new files whose request says nothing; they are replaced whole, and kept."""
    standin = make_standin(time_scale=3600.0)  # an hour is a second
    assert standin.get("/v1/storage/settings").json() == {"expiration_duration_seconds": None, "initial_acl": None}
    given = {"expiration_duration_seconds": 1800, "initial_acl": {"default": "hide", "rules": []}}
    assert given == standin.put("/v1/storage/settings", json=given).json()
    assert fetch(upload(standin)).status_code == 404
    own = '{"initial_acl": {"default": "allow"}, "expiration_duration_seconds": null}'
    kept = upload(standin, **{"X-Fal-Object-Lifecycle-Preference": own})
    assert fetch(kept).status_code == 200

    standin.put("/v1/storage/settings", json={"expiration_duration_seconds": 1800})
    short = upload(standin)
    assert fetch(short).status_code == 200
    wait_for(lambda: fetch(short).status_code == 404, 5)
    assert fetch(kept).status_code == 200
    for wrong in ({"expiration_duration_seconds": -1}, {"initial_acl": {"default": "maybe"}}):
        assert standin.put("/v1/storage/settings", json=wrong).json()["error"]["type"] == "validation_error"
    standin.stop()
    again = make_standin().get("/v1/storage/settings").json()
    assert again == {"expiration_duration_seconds": 1800, "initial_acl": None}


def test_the_accounts_own_expiry(make_standin):
    """Without a header the account's setting applies."""
    standin = make_standin(media_retention=0.3)
    url = upload(standin)
    time.sleep(0.35)

    assert fetch(url).status_code == 404


def test_nothing_outside_the_shelf(standin):
    """No path leads out of the shelf."""
    for path in ("../emulator.sqlite", "%2e%2e/emulator.sqlite", "/etc/passwd", "b/none/none_x.png"):
        assert fetch(f"{standin.url}/files/{path}").status_code in (404, 405)


def test_body_limit(make_standin):
    """A body over the limit is 413, in JSON, and nothing is kept."""
    standin = make_standin(max_body=1000)

    reply = standin.submit_raw(data=b"x" * 2000)
    assert (reply.status_code, "detail" in reply.json()) == (413, True)
    assert standin.ledger() == []
