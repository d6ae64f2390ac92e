"""A Google Cloud Storage that is all in memory, after Google's references of its two APIs.

``async with fake_gs() as server`` runs it on this event loop, ``with fake_gs_thread() as server``
in a thread of its own. ``server.endpoint`` is where; see :class:`FakeGS` for what it can be told.

Operations, for faults and in ``server.operations``, are ``buckets.get`` and the like; ``objects.``
``get``, ``media``, ``list``, ``insert``, ``patch``, ``delete``, ``move``, ``rewrite``, ``copy``,
``compose``, ``restore``; ``resumable.start``, ``put``, ``query``, ``cancel``; ``acl.``...;
``xml.get``, ``head``, ``put``, ``delete``, ``initiate``, ``part``, ``parts``, ``complete``,
``abort``, ``uploads``; ``token``, ``metadata``, ``iam``.
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
