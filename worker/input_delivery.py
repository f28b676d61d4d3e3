"""How the provider gets an input that is an object of the store: by an upload, or by a URL that needs no key."""

from typing import IO

from core.errors import StorageUnavailable
from core.input_images import InputImage
from provider.input_uploads import Uploaded
from worker.dependencies import Dependencies


def deliver_input(dependencies: Dependencies, key: str, file: IO[bytes], found: InputImage) -> Uploaded:
    """Have the provider reach what was looked at, `file`, which is the object under `key`.

    Presigned, it is the object that lies there when the provider comes; uploaded, it is what was looked at.

    Raises:
        ProviderError: its storage does not take it.
        DownloadError: the store does not sign.
        SettingsError: there is no key.
    """
    settings = dependencies.settings
    if settings.input_delivery == "upload":
        return dependencies.input_uploads.put(file, found, key.rpartition("/")[2])
    url = dependencies.storage.sign(key, settings.input_link_lifetime)
    if url is None:
        raise StorageUnavailable("cannot_sign", "This store gives out no URLs; set INPUT_DELIVERY to upload.")
    return Uploaded(url, settings.input_link_lifetime)
