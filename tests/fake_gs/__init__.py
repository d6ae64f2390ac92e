"""A Google Cloud Storage that is all in memory, after Google's references of its two APIs.

``async with fake_gs() as server`` runs it on this event loop, ``with fake_gs_thread() as server``
in a thread of its own. ``server.endpoint`` is where; see :class:`FakeGS` for what it can be told.
"""

from tests.fake_gs import faults
from tests.fake_gs.model import READS, Blob, Bucket
from tests.fake_gs.people import Account
from tests.fake_gs.server import fake_gs, fake_gs_thread
from tests.fake_gs.state import FakeGS

__all__ = [
    "READS",
    "Account",
    "Blob",
    "Bucket",
    "FakeGS",
    "fake_gs",
    "fake_gs_thread",
    "faults",
]
