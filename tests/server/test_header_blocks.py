"""A connection's header blocks mean the same with the cache of repeated blocks as without it."""

import random

import hpack
import pytest

from enginesmith_runtime.server.transport.http2.faults import ConnectionFault
from enginesmith_runtime.server.transport.http2.header_blocks import HeaderBlocks, KnownHeads
from enginesmith_runtime.server.transport.http2.request_head import read_head
from enginesmith_runtime.server.transport.http2.wire import ErrorCode

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), ("content-type", "application/grpc")]


def test_a_block_that_is_known_is_found_until_the_table_changes() -> None:
    blocks, encoder = HeaderBlocks(KnownHeads()), hpack.Encoder()
    first, again = encoder.encode(REQUEST), encoder.encode(REQUEST)
    blocks.read(first)
    assert blocks.find(first) is None  # it changed the table, and would mean something else now
    head = blocks.read(again)
    assert blocks.find(again) is head
    blocks.read(encoder.encode([*REQUEST, ("x-new", "1")]))
    assert blocks.find(again) is None


@pytest.mark.parametrize("seed", range(20))
def test_every_block_means_what_the_library_alone_reads_from_it(seed: int) -> None:
    source = random.Random(seed)  # noqa: S311 - a seed makes a failure repeatable
    blocks, encoder, alone = HeaderBlocks(KnownHeads()), hpack.Encoder(), hpack.Decoder()
    names = [(f"x-{index}", "v" * source.randrange(200)) for index in range(30)]
    for _ in range(300):
        fields = [*REQUEST, *source.sample(names, source.choice([0, 0, 0, 1, 3, 30]))]
        if source.random() < 0.05:
            encoder.header_table_size = source.choice([0, 100, 1000, 4096])
        block = encoder.encode(fields, huffman=source.random() < 0.5)
        expected = read_head([(bytes(name), bytes(value)) for name, value in alone.decode(block, raw=True)])
        assert (blocks.find(block) or blocks.read(block)) == expected


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"\xff", ErrorCode.COMPRESSION_ERROR),
        (b"\x80", ErrorCode.COMPRESSION_ERROR),
        (b"\x40", ErrorCode.COMPRESSION_ERROR),
        (b"\x40\x05ab", ErrorCode.COMPRESSION_ERROR),
        (b"\x3f\xff\xff\x7f", ErrorCode.COMPRESSION_ERROR),
        # One entry of 4,000 bytes, and two hundred bytes that name it.
        (b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 200, ErrorCode.ENHANCE_YOUR_CALM),
    ],
)
def test_a_block_that_cannot_be_read_ends_the_connection(block: bytes, code: ErrorCode) -> None:
    with pytest.raises(ConnectionFault) as caught:
        HeaderBlocks(KnownHeads()).read(block)
    assert caught.value.code is code
