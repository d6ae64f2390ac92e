"""CRC32C, the checksum that Google Storage keeps of every object."""

import base64

import anyio.to_thread
import crc32c

from etcetera import crc
from etcetera.stores import Data
from etcetera.stores.common import uninterrupted

_AT_ONCE = 1 << 18
"""Bytes that take less time than a thread does to begin."""


async def checksum(data: Data) -> int:
    """Return the CRC32C of *data*, which nobody looks at any more when this ends."""
    if len(data) <= _AT_ONCE:
        return crc32c.crc32c(data)
    return await uninterrupted(anyio.to_thread.run_sync(crc32c.crc32c, data), patient=True)


def combine(first: int, second: int, length: int) -> int:
    """Return the CRC32C of two runs of bytes, the second of which has *length*."""
    return crc.combine(crc.CRC32C, first, second, length)


def encoded(value: int) -> str:
    """Return a checksum as requests and answers have it: four bytes, big-endian, in Base64."""
    return base64.b64encode(value.to_bytes(4, "big")).decode("ascii")


def decoded(text: str) -> int:
    """Return a checksum that is written so.

    Raises:
        ValueError: It is none.
    """
    data = base64.b64decode(text, validate=True)
    if len(data) != 4:
        raise ValueError("a CRC32C has four bytes")
    return int.from_bytes(data, "big")
