"""Which archives a home knows to hold what their indexes say.

An index names the content of each file, but whoever made the archive may have lied. Who pushes,
pulls or verifies all of an archive knows better, for this version of it: its ETag.
"""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path

from etcetera import atomic
from etcetera.errors import EtceteraError, os_errors
from etcetera.staging import Private

_logger = logging.getLogger("etcetera")


class CheckedArchives:
    """The last version of each archive that was checked."""

    def __init__(self, private: Private) -> None:
        """Keep them in the private part of a home."""
        self._private = private

    def note(self, place: tuple[str, str], key: str, etag: str) -> None:
        """Keep in mind that this version was checked, as far as that is possible.

        Args:
            place: URL and endpoint, as :func:`etcetera.settings.place` names them.
            key: Of the archive.
            etag: Of the version.
        """
        try:
            self._private.directory("checked")
            text = json.dumps({"place": place, "key": key, "etag": etag}).encode()
            with os_errors(f"writing below {self._private.path('checked')}"):
                atomic.write(self._path(place, key), lambda file: file.write(text))
        except EtceteraError as error:  # the next update sends everything
            _logger.debug("%s: %s", key, error)

    def knows(self, place: tuple[str, str], key: str, etag: str) -> bool:
        """Whether this version was checked."""
        with suppress(OSError, ValueError, RecursionError):
            noted = json.loads(self._path(place, key).read_bytes())
            return bool(noted == {"place": [*place], "key": key, "etag": etag})
        return False

    def _path(self, place: tuple[str, str], key: str) -> Path:
        name = hashlib.sha256("\0".join((*place, key)).encode()).hexdigest()[:32]
        return self._private.path("checked") / f"{name}.json"
