"""Where a file that is being fetched is kept: in memory while it is small, else in the temporary folder."""

import tempfile
from typing import Any

from core.resource_errors import storage_trouble


class DownloadFile(tempfile.SpooledTemporaryFile[bytes]):
    """A temporary file whose trouble is told from that of the image's host."""

    def write(self, content: Any) -> int:
        """As always.

        Raises:
            StorageUnavailable: the temporary folder takes no more.
        """
        try:
            return super().write(content)
        except OSError as error:
            if trouble := storage_trouble(error, f"The temporary folder {tempfile.gettempdir()}"):
                raise trouble from error
            raise
