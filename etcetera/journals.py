"""The journals of a home: one for each dataset and place that it is pushed to."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import suppress

from etcetera.errors import EtceteraError
from etcetera.settings import RepositorySettings, place
from etcetera.staging import Private
from etcetera.transfer.journal import Journal

_logger = logging.getLogger("etcetera")


class Journals:
    """Where they are; each is looked at by one process at a time."""

    def __init__(self, private: Private) -> None:
        """Use the private part of a home."""
        self._private = private

    def of(self, name: str, settings: RepositorySettings, key: str) -> Journal | None:
        """The journal of one push, whether there is one already or not; ``None`` without a place.

        Args:
            name: Of the dataset.
            settings: Of the repository.
            key: Of the archive in it.
        """
        url, endpoint = place(settings)
        digest = hashlib.sha256("\0".join((url, endpoint, key)).encode()).hexdigest()
        try:
            directory = self._private.directory("journals")
        except EtceteraError as error:
            _logger.debug("If this push breaks off it has to begin anew: %s", error)
            return None
        about = {"name": name, "repository": url, "endpoint": endpoint, "key": key}
        return Journal(directory / f"{name}.{digest[:16]}", about)

    def all(self) -> Iterator[Journal]:
        """Every journal that is there, whatever it holds."""
        directory = self._private.path("journals")
        with suppress(OSError):
            # Where a link leads, nothing is ours.
            if not directory.parent.is_symlink() and not directory.is_symlink():
                for path in sorted(directory.iterdir()):
                    if not path.is_symlink():
                        yield Journal(path, {})
