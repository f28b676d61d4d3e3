"""The page at `/`: what this is, totals, every request with what became of it, filters, thumbnails, nothing foreign."""

import io
import re
from html import unescape

import pytest
from PIL import Image

from fal_emulator.pages import SHOWN
from fal_emulator.rows import STATES

from .emulator_process import wait_for


def rows(page):
    """The table's rows as lists of the words in their cells."""
    found = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [
        [unescape(re.sub(r"<[^>]*>", " ", cell)).split() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in found
    ]


def counts(page):
    """The numbers behind the filters."""
    found = re.findall(r"<a href=\"/[^>]*>([A-Z][a-z ]+)<small>(\d+)</small>", page)
    return {word: int(count) for word, count in found}


def test_before_anything_was_submitted(emulator):
    """It says that it is an emulator without AI, and shows a call that works as it stands."""
    page = emulator.get("/").text
    assert "emulator" in page
    assert "No AI" in page
    assert "Nothing was submitted yet" in page
    command = unescape(re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)[1])
    url, body = re.search(r"(http://\S+)", command)[1], re.search(r"-d '(.*)'", command, re.DOTALL)[1]
    emulator.put("/_emulator/options", json={"image_mode": "full"})

    assert emulator.finish(emulator.post(url, data=body).json()).status_code == 200


def test_a_row_tells_what_became_of_a_request(emulator, receiver):
    """Id, state, charge, webhook attempts, faults."""
    receiver.answers = [500, 200]
    job = emulator.submit(receiver.url, prompt="[[fault:fewer_images]]", num_images=3, seed=77)
    wait_for(lambda: emulator.row(job)["webhook"]["state"] == "delivered")
    failed = emulator.submit(prompt="[[fault:generation_timeout]]")
    emulator.finish(failed)
    second, first = rows(emulator.get("/").text)

    assert first[1] == [job["request_id"], "fal-ai/bytedance/seedream/v4/edit", "seed", "77"]
    assert first[2] == ["succeeded"]
    assert first[4:] == [["$0.06", "2", "charged"], ["delivered", "2", "attempts"], ["fewer_images"]]
    assert second[2] == ["failed", "504", "generation_timeout"]
    assert second[4:] == [["no", "charge"], ["no", "webhook"], ["generation_timeout"]]


def test_filters(make_emulator):
    """Each state shows its own requests, with its count; an unknown one is refused."""
    emulator = make_emulator(concurrency=1)
    emulator.finish(emulator.submit())
    emulator.finish(emulator.submit(num_images=99))
    emulator.put("/_emulator/options", json={"latency": 60.0})
    jobs = [emulator.submit() for _ in range(4)]
    wait_for(lambda: emulator.status(jobs[0]).json()["status"] == "IN_PROGRESS")
    emulator.put(jobs[3]["cancel_url"])
    emulator.finish(jobs[3])

    page = emulator.get("/").text
    expected = {"All": 6, "In queue": 2, "In progress": 1, "Succeeded": 1, "Failed": 1, "Cancelled": 1}
    assert expected == counts(page)
    assert len(rows(page)) == 6
    for name, (word, _) in STATES.items():
        states = [row[2] for row in rows(emulator.get("/", params={"state": name}).text)]
        assert len(states) == expected[word]
        assert all(" ".join(state).startswith(word.lower()) for state in states)
    assert emulator.get("/?state=lost").status_code == 404


def test_older_requests(emulator):
    """A page at a time, none twice, none missing."""
    ids = [emulator.submit(seed=n)["request_id"] for n in range(SHOWN + 3)]
    wait_for(lambda: counts(emulator.get("/").text)["Succeeded"] == len(ids))
    found, path = [], "/?state=succeeded"
    while path:
        page = emulator.get(path).text
        found += [row[1][0] for row in rows(page)]
        following = re.search(r'<p class="older"><a href="([^"]*)"', page)
        path = unescape(following[1]) if following else None

    assert found == ids[::-1]


def test_thumbnails(emulator):
    """Small images that use no fault up; what they lead to is the image itself."""
    job = emulator.submit(prompt="[[fault:cdn_404*1]]", num_images=2)
    url = emulator.finish(job).json()["images"][0]["url"]
    page = emulator.get("/").text
    sources, links = re.findall(r'<img src="([^"]*)"', page), re.findall(r'<a href="([^"]*)"><img', page)

    small = emulator.get(unescape(sources[0]))
    assert max(Image.open(io.BytesIO(small.content)).size) <= 160
    assert Image.open(io.BytesIO(emulator.get(unescape(links[0])).content)).size == (2048, 2048)
    assert len(sources) == len(links) == 2
    assert emulator.get(url).status_code == 404
    assert emulator.get("/_emulator/thumbnails/files/b/none/none_x.png").status_code == 404


@pytest.mark.parametrize("path", ["/", "/?state=failed"])
def test_nothing_foreign_and_nothing_unescaped(emulator, path):
    """Text from clients is escaped, and the page loads nothing from elsewhere."""
    emulator.submit(webhook="http://127.0.0.1:9/<b>", prompt="<script>")
    job = emulator.submit_raw(endpoint="fal-ai/bytedance/<i>", json={}).json()
    emulator.finish(job)
    text = emulator.get(path).text

    assert job["request_id"] in text
    assert "<script" not in text
    assert "<i>" not in text
    assert "&lt;i&gt;" in text
    assert re.findall(r'(?:src|href)="(?!/|data:,)', text) == []
    assert "url(" not in text
