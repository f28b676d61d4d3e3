"""What the tests of the queue's client share: one submit, and replies of the queue and of what stands before it."""

from provider.queue_api import QueueAPI
from tests.support.servers import Peer

ENDPOINT = "fal-ai/bytedance/seedream/v4/edit"
KEY = "key-id:key-secret"
ARGUMENTS = {"prompt": "Grüße 🦊 \u2028", "image_urls": ["https://example.com/a.png"], "seed": 7}
WEBHOOK = "https://public.example/a/webhooks/fal/6a3e5e3c-0000-4000-8000-000000000001"
NGINX = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body></html>"


def client(url: str) -> QueueAPI:
    return QueueAPI(url, KEY, start_timeout=600)


def submit(url: str) -> str:
    return client(url).submit(ENDPOINT, ARGUMENTS, webhook_url=WEBHOOK)


def accepted(peer: Peer) -> bool:
    return peer.reply(200, b'{"status": "IN_QUEUE", "request_id": "8f1c", "queue_position": 0}')


def dripping(peer: Peer) -> None:
    """A reply of one byte every tenth of a second, which no read timeout notices."""
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for byte in b'{"request_id": "8f1c"'.ljust(1000):
        peer.send(bytes([byte]))
        peer.silence(0.1)
