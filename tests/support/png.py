"""A browser's screenshot made small: its few hundred colours as a palette of 256, which a third of the bytes can say.

PNG, third edition (https://www.w3.org/TR/png-3/): 8 bits a sample, RGB or RGBA, not interlaced, as Chromium writes it.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
PALETTE_MOST: Final = 256

Colour = tuple[int, ...]


def with_palette(png: bytes) -> bytes:
    """The same picture; a colour that is not among the 256 most frequent becomes the nearest of these."""
    width, height, pixels = _decoded(png)
    counts = Counter(pixels)
    palette = [colour for colour, _ in counts.most_common(PALETTE_MOST)]
    index = {colour: number for number, colour in enumerate(palette)}
    for colour in counts:
        if colour not in index:
            index[colour] = min(range(len(palette)), key=lambda number: _distance(palette[number], colour))
    rows = bytearray()
    for at in range(0, len(pixels), width):
        rows.append(0)
        rows += bytes(index[colour] for colour in pixels[at : at + width])
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    colours = bytes(part for colour in palette for part in colour[:3])
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _decoded(png: bytes) -> tuple[int, int, list[Colour]]:
    assert png.startswith(SIGNATURE)
    chunks = list(_chunks(png))
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    samples = {2: 3, 6: 4}[kind]
    assert (depth, interlaced) == (8, 0)
    raw = zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT"))
    size = width * samples
    pixels: list[Colour] = []
    above = bytes(size)
    for at in range(0, len(raw), size + 1):
        row = _unfiltered(raw[at], bytearray(raw[at + 1 : at + 1 + size]), above, samples)
        pixels += zip(*(row[sample::samples] for sample in range(samples)), strict=True)
        above = bytes(row)
    assert len(pixels) == width * height
    return width, height, pixels


def _unfiltered(kind: int, row: bytearray, above: bytes, samples: int) -> bytearray:
    for at, value in enumerate(row):
        left = row[at - samples] if at >= samples else 0
        corner = above[at - samples] if at >= samples else 0
        row[at] = (value + (0, left, above[at], (left + above[at]) // 2, _paeth(left, above[at], corner))[kind]) & 0xFF
    return row


def _paeth(left: int, above: int, corner: int) -> int:
    return min((left, above, corner), key=lambda one: abs(left + above - corner - one))


def _distance(one: Colour, other: Colour) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += size + 12


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
