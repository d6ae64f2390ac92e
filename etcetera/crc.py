"""Checksums of two runs of bytes from that of each: CRCs are linear."""

from functools import lru_cache

CRC32 = 0xEDB88320
"""The polynomial of zlib and gzip, bit-reflected."""
CRC32C = 0x82F63B78
"""Castagnoli's, bit-reflected. Source: RFC 3720, section 12.1."""


def combine(polynomial: int, first: int, second: int, length: int) -> int:
    """Return the checksum of two runs of bytes.

    Args:
        polynomial: Which checksum it is.
        first: Of the first run.
        second: Of the second run.
        length: Of the second run, in bytes.

    Raises:
        ValueError: A length that is none.
    """
    if length < 0:
        raise ValueError(f"{length} bytes are no length")
    return _multiply(polynomial, _zeros(polynomial, length), first) ^ second


@lru_cache(maxsize=1024)
def _zeros(polynomial: int, length: int) -> int:
    """What advances a checksum over *length* zero bytes: x^(8 * length) modulo the polynomial.

    Source: zlib, ``crc32.c``, the technique of ``multmodp``.
    """
    power, square = 1 << 31, 1 << 23  # x^0 and x^8, bit-reflected
    while length:
        if length & 1:
            power = _multiply(polynomial, square, power)
        square = _multiply(polynomial, square, square)
        length >>= 1
    return power


def _multiply(polynomial: int, a: int, b: int) -> int:
    """The product of two polynomials, modulo a third, all bit-reflected."""
    product = 0
    bit = 1 << 31
    while bit:
        if a & bit:
            product ^= b
        b = (b >> 1) ^ (polynomial if b & 1 else 0)
        bit >>= 1
    return product
