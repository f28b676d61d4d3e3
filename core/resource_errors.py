"""Which errors are this machine's trouble, or the store's, and say nothing about the image that met them."""

import errno

from core.errors import StorageUnavailable

REASONS = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EACCES: "not_writable",
    errno.EPERM: "not_writable",
    errno.EROFS: "not_writable",
    errno.EIO: "disk_error",
    errno.ENODEV: "disk_error",
    errno.ENXIO: "disk_error",
    errno.ESTALE: "unreachable",
    errno.ENOTCONN: "unreachable",
    errno.ETIMEDOUT: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.EMFILE: "too_many_open_files",
    errno.ENFILE: "too_many_open_files",
    errno.ENOMEM: "out_of_memory",
}
"""The reason of a pause, by what the operating system says of a file of ours."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What a connection may also fail with although the other side is blameless."""


def storage_trouble(error: OSError, place: str) -> StorageUnavailable | None:
    """What an error of a file in `place` means for every image; None where it is about this one."""
    reason = REASONS.get(error.errno or 0)
    return StorageUnavailable(reason, f"{place}: {error.strerror or error}") if reason else None


def find_exhaustion(error: BaseException) -> StorageUnavailable | None:
    """The error to raise if this process ran out of files or memory, somewhere beneath the one given; else None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return StorageUnavailable("out_of_memory", "This process cannot get more memory.")
        if isinstance(seen, OSError) and seen.errno in EXHAUSTED:
            return storage_trouble(seen, "This process")
        seen = seen.__cause__ or seen.__context__
    return None
