"""The way out through a company's proxy and under its own authority, for everybody who calls somebody."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from io import BytesIO

import pytest

from core.errors import FetchAgain, SettingsError, TryLater, UnknownOutcome, Unsent, Unusable
from core.network import Network
from core.settings import NetworkSettings, load
from http_client.fetch import Fetcher
from provider.cdn import CDN
from provider.platform import PlatformAPI
from provider.queue_api import QueueAPI
from tests.support.servers import Peer, Script, Wire, closed_port, reply, serve
from tests.support.wire_faults import AUTHORITY, Proxy, proxying, server_context
from webhook_receiver.jwks import fetch_keys
from worker.webhook_sender import WebhookSender
from worker.webhook_signing import EVERYONE, Signer

KEY = "key-id:key-secret"
X = b64encode(bytes(32)).decode()
ANSWERS: dict[str, bytes] = {
    "/fal-ai/x": b'{"request_id": "8f1c"}',
    "/jwks.json": json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": X}]}).encode(),
    "/storage/auth/token": b'{"token": "t", "expires_at": "2099-01-01T00:00:00Z"}',
    "/files/upload": b'{"access_url": "https://provider.example/f.png"}',
    "/v1/models/pricing": b'{"prices": []}',
}


def answer(peer: Peer) -> bool:
    assert peer.request is not None
    return peer.reply(200, ANSWERS.get(peer.request.target.partition("?")[0], b"an image"))


def secure(script: Script = answer):
    """A server that only `AUTHORITY` vouches for."""
    return serve(script, wrap=lambda sock: server_context().wrap_socket(sock, server_side=True))


@pytest.fixture
def there() -> Iterator[Wire]:
    """provider.example, as the proxy knows it."""
    with secure() as wire:
        yield wire


@pytest.fixture
def proxy(there: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The company's proxy, told of in the usual variables."""
    with proxying(provider__example=there.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(AUTHORITY))
        yield proxy


def queue(url: str = "https://provider.example") -> QueueAPI:
    return QueueAPI(url, KEY, start_timeout=60, submit_timeout=2.0)


def submit(url: str = "https://provider.example") -> str:
    return queue(url).submit("fal-ai/x", {"prompt": "p"}, webhook_url=None)


def deliver(url: str) -> None:
    sent = WebhookSender(Signer({EVERYONE: (bytes(32),)}), ()).deliver(url, "message", "{}", client="", timeout=5)
    assert sent.status == 200, sent.error


CALLS: dict[str, Callable[[str], object]] = {
    "provider": submit,
    "keys": lambda url: fetch_keys(f"{url}/jwks.json"),
    "image": lambda url: Fetcher(["provider.example"], max_bytes=1000).fetch(f"{url}/a.png").close(),
    "upload": lambda url: CDN(url, url, KEY).upload(BytesIO(b"x"), content_type="image/png", file_name="a.png"),
    "platform": lambda url: PlatformAPI(url, KEY).get("/v1/models/pricing", {}, items="prices"),
    "caller": deliver,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_everybody_goes_through_the_proxy(call: Callable[[str], object], proxy: Proxy, there: Wire) -> None:
    call("https://provider.example")
    assert set(proxy.targets) == {"CONNECT provider.example:443"}
    assert there.received


def test_each_password_goes_where_it_belongs(proxy: Proxy, there: Wire) -> None:
    submit()
    ((_, requested),), (received,) = proxy.requested, there.received
    assert requested["proxy-authorization"] == "Basic " + b64encode(b"me:p@ss").decode()
    assert "authorization" not in requested
    assert "proxy-authorization" not in received.headers
    assert received.headers["authorization"] == f"Key {KEY}"


def test_a_certificate_that_the_company_does_not_vouch_for(
    proxy: Proxy, there: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(Unsent, match="CERTIFICATE_VERIFY_FAILED"):
        submit()
    assert there.received == []
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    assert submit() == "8f1c"


@pytest.mark.parametrize("status", [403, 407, 502, 503])
def test_a_proxy_that_does_not_connect(proxy: Proxy, there: Wire, status: int) -> None:
    """Nothing was sent, whatever it says: the edit may be submitted again."""
    proxy.refusal = reply(status, b"no")
    with pytest.raises(Unsent, match=str(status)):
        submit()
    with pytest.raises(FetchAgain):
        Fetcher(["provider.example"], max_bytes=1000).fetch("https://provider.example/a.png")
    assert there.received == []


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_a_proxy_that_breaks_off(proxy: Proxy, there: Wire, said: bytes) -> None:
    proxy.refusal = said or b"\r\n"
    with pytest.raises(Unsent):
        submit()
    assert there.received == []


def test_a_proxy_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{closed_port()}")
    with pytest.raises(Unsent):
        submit()


def test_a_line_that_is_cut_after_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy had connected and the request was out: nobody knows."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(AUTHORITY))
    with secure(lambda peer: peer.reset()) as there, proxying(provider__example=there.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(UnknownOutcome):
            submit()
        assert len(there.received) == 1


def test_http_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 407 can only be the proxy's own, before it passed anything on; a 502 tells nothing about acceptance."""
    with serve(answer) as there, proxying(provider__example=there.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert submit("http://provider.example") == "8f1c"
        assert proxy.targets == ["POST http://provider.example/fal-ai/x"]
        proxy.refusal = reply(407)
        with pytest.raises(Unsent):
            submit("http://provider.example")
        proxy.refusal = reply(502)
        with pytest.raises(UnknownOutcome):
            submit("http://provider.example")
        with pytest.raises(TryLater):
            queue("http://provider.example").status("fal-ai/x", "r")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_needs_no_proxy(proxy: Proxy, there: Wire, host: str) -> None:
    assert submit(f"https://{host}:{there.port}") == "8f1c"
    assert proxy.requested == []


def test_exceptions(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "other.example, .example")
    with pytest.raises(Unsent):
        submit()
    assert proxy.requested == []


@pytest.mark.parametrize(
    ("entry", "host", "excepted"),
    [
        ("*", "a.example", True),
        ("example", "a.example", True),
        (".example", "example", True),
        ("*.example", "a.example", True),
        ("ample", "a.example", False),
        ("a.example:443", "a.example", True),
        ("a.example:8443", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "[fd00::1]", True),
        ("fd00::/8", "10.1.2.3", False),
        ("", "a.example", False),
        ("A.EXAMPLE", "a.example.", True),
    ],
)
def test_what_an_exception_covers(entry: str, host: str, excepted: bool) -> None:
    network = Network(https_proxy="http://proxy:3128", no_proxy=(entry,))
    assert (network.proxy_for(f"https://{host}/x") is None) == excepted


def test_a_literal_address_is_judged_as_without_a_proxy(proxy: Proxy) -> None:
    """Else a caller, or the provider, could have the proxy fetch from inside the company."""
    with pytest.raises(Unusable, match="private address"):
        Fetcher(["10.*"], max_bytes=1000).fetch("https://10.1.2.3/a.png")
    sent = WebhookSender(Signer({EVERYONE: (bytes(32),)}), ()).deliver(
        "https://10.1.2.3/hook", "m", "{}", client="", timeout=2
    )
    assert "private address" in (sent.error or "")
    with pytest.raises(Unusable, match="not fetched from"):
        Fetcher(["provider.example"], max_bytes=1000).fetch("https://stranger.example/a.png")
    assert proxy.requested == []


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("HTTPS_PROXY", "socks5://127.0.0.1:1080", "http://"),
        ("HTTPS_PROXY", "http://proxy:port", "http://"),
        ("HTTP_PROXY", "http://", "http://"),
        ("HTTP_PROXY", "http://u:hunter3#@proxy:3128", "http://"),
        ("REQUESTS_CA_BUNDLE", "/no/such.pem", "/no/such.pem"),
        ("REQUESTS_CA_BUNDLE", "~nobody-here/ca.pem", "~nobody-here"),
        ("SSL_CERT_FILE", __file__, "PEM"),
        ("SSL_CERT_FILE", "/", "/"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as refused:
        load(NetworkSettings)
    assert named in str(refused.value)
    assert "hunter3" not in str(refused.value)


def test_names_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "proxy:3128")
    monkeypatch.setenv("no_proxy", "a, b")
    assert load(NetworkSettings).network == Network("http://proxy:3128", None, ("a", "b"), None)
