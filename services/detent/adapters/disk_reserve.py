"""Hold disk space that nothing uses, to be given back when there is no other left."""

import contextlib
import os
from pathlib import Path


class DiskReserve:
    """Owns one file of real blocks beside the ledger.

    With no durable place left, exits are recorded in the space that it gives back (RELIABILITY,
    row C5). It is taken again as soon as there is room.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Hold nothing yet.

        Args:
            path: The file; on the same file system as what it is a reserve for.
            size_bytes: How much to hold, at least 0; 0 holds nothing and never has anything.
        """
        self._path = path
        self._size_bytes = size_bytes
        self.is_held = False

    def hold(self) -> bool:
        """Take the space unless it is held, and say whether it is."""
        if self.is_held or self._size_bytes == 0:
            return True
        try:
            with self._path.open("ab") as file:
                # Blocks, not a hole: what is only promised is not there when it is needed.
                os.posix_fallocate(file.fileno(), 0, self._size_bytes)
                os.fsync(file.fileno())
        except OSError:
            self.release()
            return False
        self.is_held = True
        return True

    def release(self) -> bool:
        """Give the space back and say whether there was any."""
        was_held, self.is_held = self.is_held, False
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        return was_held
