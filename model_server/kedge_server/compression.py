"""Content codings of bodies, bounded in what they may expand to."""

from __future__ import annotations

import zlib

from kedge_server.errors import ClientError

# Window bits of zlib for each coding: 16 more is gzip's framing.
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
# Below this an answer is sent sooner than it is compressed; inside a cluster the
# network is seldom what a client waits for.
MIN_BYTES = 64 * 1024
# The fastest level: numbers as text shrink to less than half already.
_LEVEL = 1


def decompress(body: bytes, coding: bytes, limit: int) -> bytes:
    """Returns what `body` holds in the content coding `coding`.

    Raises:
        ClientError: The coding is unknown, the data is damaged, or there are more than
            `limit` bytes in it.
    """
    if coding in (b"", b"identity"):
        return body
    bits = _WINDOW_BITS.get(coding)
    if bits is None:
        shown = coding.decode("latin-1")[:40]
        raise ClientError(f'content-encoding "{shown}" is not one of gzip, deflate, identity', 415)
    decoder = zlib.decompressobj(bits)
    try:
        data = decoder.decompress(body, limit + 1)
    except zlib.error as exc:
        raise ClientError(f"the body is not valid {coding.decode()}: {exc}") from exc
    if len(data) > limit:
        raise ClientError(f"the body has more than {limit} bytes when decompressed", 413)
    if not decoder.eof or decoder.unused_data:
        raise ClientError(f"the body is not one whole {coding.decode()} stream")
    return data


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Tells whether a client takes gzip (RFC 9110, section 12.5.3)."""
    taken: dict[bytes, bool] = {}
    for item in accept_encoding.lower().split(b","):
        coding, _, weight = item.partition(b";")
        taken[coding.strip()] = weight.replace(b" ", b"").rstrip(b"0.") not in (b"q=", b"q")
    # What is named counts, whatever is said of the rest.
    return next((taken[name] for name in (b"gzip", b"x-gzip", b"*") if name in taken), False)


def gzip(body: bytes) -> bytes:
    """Compresses an answer."""
    return zlib.compress(body, _LEVEL, 16 + zlib.MAX_WBITS)
