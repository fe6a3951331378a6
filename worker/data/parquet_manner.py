"""How the columns of a Parquet file were written, and how far a rewritten row group can follow.

A row group that holds no forgotten row is copied byte by byte. What is said here is about others.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from domain.errors import JobError
from worker.data.compact_thrift import Reader, Struct
from worker.data.parquet_footer import BOOLEAN, Footer, Leaf, chunks

CODECS = {0: "NONE", 1: "SNAPPY", 2: "GZIP", 4: "BROTLI", 5: "LZ4", 6: "ZSTD", 7: "LZ4"}
HADOOP_LZ4 = 5
"""Lz4 in frames of Hadoop's own, which no writer should make any more."""

ENCODINGS = {
    5: "DELTA_BINARY_PACKED", 6: "DELTA_LENGTH_BYTE_ARRAY", 7: "DELTA_BYTE_ARRAY",
    9: "BYTE_STREAM_SPLIT",
}  # fmt: skip
"""Of values, besides PLAIN and dictionaries, by their numbers in Parquet."""

PLAIN, OLD_DICTIONARY, DICTIONARY = 0, 2, 8
OF_LEVELS = frozenset({0, 3, 4})
"""Encodings that say nothing about the values: PLAIN is what remains, the others are of levels."""

PAGE_HEADER = 2**14
LONGEST_PAGE_HEADER = 2**24
BLOOM_ERROR = 0.01
"""Share of values that a new Bloom filter takes for one of its own."""

MOST_ROWS = 64 * 2**20
"""Of a row group that pyarrow writes."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How one column of a row group was written."""

    codec: int
    encodings: frozenset[int]
    run_lengths: bool
    """Whether truth values are stored by their run lengths."""

    statistics: bool
    page_index: bool
    bloom_filter: bool
    second_pages: bool
    """Whether its data pages are of version 2."""

    checksums: bool

    @classmethod
    def of(cls, chunk: Struct, leaf: Leaf, data: IO[bytes]) -> "Manner":
        """Read it from the column's metadata and the header of its first page.

        Raises:
            ValueError: what should be a page is none.
        """
        metadata = chunk[3].data
        page = _page_header(data, metadata[9].data) if metadata[5].data else {}
        return cls(
            codec=metadata[4].data,
            encodings=frozenset(metadata[2].data.items),
            run_lengths=leaf.type == BOOLEAN and PLAIN not in metadata[2].data.items,
            statistics=12 in metadata and bool(metadata[12].data) and leaf.ordered,
            page_index=4 in chunk,
            bloom_filter=14 in metadata and leaf.type != BOOLEAN,
            second_pages=8 in page,
            checksums=4 in page,
        )


def options(manners: Mapping[str, Manner], *, unsigned: bool, rows: int) -> dict[str, Any]:
    """How pyarrow is to write columns, so that they are as they were.

    Args:
        manners: by the path that the column has in the new file.
        unsigned: whether one of them holds unsigned numbers of 32 bits.
        rows: how many there will be.
    """
    first = next(iter(manners.values()))
    with_dictionary = [
        path for path, manner in manners.items() if manner.encodings & {OLD_DICTIONARY, DICTIONARY}
    ]
    # The word for a dictionary depends on the version, and version 1 has no unsigned numbers.
    old = any(OLD_DICTIONARY in manner.encodings for manner in manners.values()) and not unsigned
    asked = {
        path: _encoding(manner)
        for path, manner in manners.items()
        if path not in with_dictionary and _encoding(manner)
    }
    return {
        "version": "1.0" if old else "2.6",
        "compression": {path: CODECS[manner.codec] for path, manner in manners.items()},
        "use_dictionary": with_dictionary or False,
        "column_encoding": asked or None,
        "write_statistics": [path for path, manner in manners.items() if manner.statistics]
        or False,
        "data_page_version": "2.0" if first.second_pages else "1.0",
        "write_page_checksum": first.checksums,
        "write_page_index": first.page_index,
        "bloom_filter_options": {
            path: {"ndv": rows, "fpp": BLOOM_ERROR}
            for path, manner in manners.items()
            if manner.bloom_filter
        }
        or None,
        "store_schema": False,
    }


def _encoding(manner: Manner) -> str | None:
    if manner.run_lengths:
        return "RLE"
    return next((ENCODINGS[e] for e in sorted(manner.encodings) if e in ENCODINGS), None)


def unkept(footer: Footer) -> list[str]:
    """What rewritten row groups cannot keep, in sentences; nothing that concerns a value.

    Raises:
        JobError: rows cannot be taken out of this file.
    """
    kinds: dict[str, dict[str, None]] = {}
    for group in footer.row_groups:
        if group[3].data > MOST_ROWS:
            raise JobError(
                f"{footer.file.name} has a row group of {group[3].data} rows, and {MOST_ROWS} can "
                "be rewritten; write the file again with smaller row groups."
            )
        for leaf, chunk in zip(footer.leaves, chunks(group), strict=True):
            if chunk[3].data[4].data not in CODECS:
                raise JobError(
                    f"Column {leaf.path!r} of {footer.file.name} is compressed with a codec that "
                    "cannot be written; write the file again, with Zstandard for example."
                )
            for sentence in _lost(chunk, leaf):
                kinds.setdefault(sentence, {})[leaf.path] = None
    return [f"{sentence}: {_some(list(paths))}." for sentence, paths in kinds.items()]


def _lost(chunk: Struct, leaf: Leaf) -> Iterator[str]:
    metadata = chunk[3].data
    if metadata[4].data == HADOOP_LZ4:
        yield "Compression LZ4 in Hadoop's frames becomes LZ4_RAW"
    strange = set(metadata[2].data.items) - OF_LEVELS - ENCODINGS.keys()
    if strange - {OLD_DICTIONARY, DICTIONARY}:
        yield "Values are encoded as PLAIN, since the writer lacks their encoding"
    if 12 in metadata and metadata[12].data and not leaf.ordered:
        yield "Statistics (smallest and largest value) are left out, since the writer cannot order"
    if 17 in metadata:
        yield "Geospatial statistics are left out"
    if 14 in metadata:
        yield "Bloom filters are made anew, perhaps in another size"


def _some(paths: Sequence[str]) -> str:
    named = ", ".join(repr(path) for path in paths[:10])
    return named if len(paths) <= 10 else f"{named} and {len(paths) - 10} more"


def _page_header(data: IO[bytes], at: int) -> Struct:
    size = PAGE_HEADER
    while True:
        data.seek(at)
        raw = data.read(size)
        try:
            return Reader(raw).struct()
        except ValueError:
            if len(raw) < size or size >= LONGEST_PAGE_HEADER:
                raise
            size *= 16


def bloom_filter(data: IO[bytes], metadata: Struct) -> tuple[int, int] | None:
    """Where a column's Bloom filter begins, and how many bytes it has; None if it has none."""
    if 14 not in metadata:
        return None
    begin = metadata[14].data
    if 15 in metadata:
        return begin, metadata[15].data
    data.seek(begin)
    reader = Reader(data.read(PAGE_HEADER))
    bits: int = reader.struct()[1].data
    return begin, reader.at + bits
