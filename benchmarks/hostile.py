"""Small files that say, or become, more than they are; and the honest ones beside them."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLUMNS = {"sample_id": "id", "input": "input", "label": "label", "split": "split"}
SPLITS = {"train": "train", "holdout": "holdout", "test": "test"}
MB = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    """A Parquet file to index."""

    name: str
    kind: str
    """Which honest file it is compared with: one of arrays, or one of images."""

    write: Callable[[Path], None]
    input_shape: list[int] | None = None


def table(inputs: pa.Array | pa.ChunkedArray, **columns: Any) -> pa.Table:
    """Sound rows with these inputs."""
    rows = len(inputs)
    numbers = np.arange(rows)
    return pa.table({
        "id": pa.array([f"p{n}" for n in numbers]),
        "input": inputs,
        "label": pa.array(numbers % 2),
        "split": pa.array(np.where(numbers % 4, "train", "holdout")).dictionary_encode(),
        **columns,
    })  # fmt: skip


def written(path: Path, rows: pa.Table, **how: Any) -> None:
    pq.write_table(rows, path, **{"compression": "zstd", "row_group_size": len(rows), **how})


def repeated(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    """One value that many rows have, held once."""
    indices = pa.array(np.zeros(rows, np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], kind))


def zeros(size: int, rows: int = 1) -> pa.Array:
    """Lists of so many zeros each."""
    offsets = pa.array(np.arange(rows + 1, dtype=np.int64) * size)
    return pa.LargeListArray.from_arrays(offsets, pa.array(np.zeros(size * rows, np.uint8)))


def honest_arrays(path: Path) -> None:
    """128 MB in rows of 3 kB: CIFAR-10 has 32 x 32 pixels of three colours."""
    rng = np.random.default_rng(0)
    size, rows = 3 * 32 * 32, 40_000
    pixels = pa.array(rng.integers(0, 256, rows * size, dtype=np.uint8))
    written(path, table(pa.FixedSizeListArray.from_arrays(pixels, size)), row_group_size=10_000)


def honest_photos(path: Path) -> None:
    """Photos of 12 megapixels."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
        files.append(encoded(coarse.resize((4000, 3000), Image.Resampling.BICUBIC), "JPEG"))
    written(path, table(pa.array([files[n % 4] for n in range(40)], pa.binary())))


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def value_repeated(size: int, rows: int, column: str = "input") -> Callable[[Path], None]:
    """A dictionary with one large value, which every row has."""

    def write(path: Path) -> None:
        value = b"\xff" * size if column == "input" else "x" * size
        many = repeated(value, pa.binary() if column == "input" else pa.string(), rows)
        inputs = many if column == "input" else zeros(4, rows)
        written(path, table(inputs, **({} if column == "input" else {column: many})),
                dictionary_pagesize_limit=2**30)  # fmt: skip

    return write


def one_page(codec: str, size: int) -> Callable[[Path], None]:
    """One row, whose page becomes huge when it is decompressed."""

    def write(path: Path) -> None:
        written(path, table(zeros(size)), compression=codec, use_dictionary=False,
                data_page_size=2**30)  # fmt: skip

    return write


def many_rows(rows: int) -> Callable[[Path], None]:
    """Rows that are all alike, in runs that take a few bytes."""

    def write(path: Path) -> None:
        alike = {
            "id": repeated("p", pa.string(), 10**6),
            "label": repeated(0, pa.int64(), 10**6),
            "split": repeated("train", pa.string(), 10**6),
        }
        rows_of_million = pa.table({**alike, "input": zeros(1, 10**6)})
        with pq.ParquetWriter(path, rows_of_million.schema, compression="zstd") as writer:
            for _ in range(rows // 10**6):
                writer.write_table(rows_of_million)

    return write


def lying(write: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same file, whose footer says that its columns are tiny."""

    def write_and_lie(path: Path) -> None:
        write(path)
        with pq.ParquetFile(path) as file:
            group = file.metadata.row_group(0)
            sizes = [group.column(n).total_uncompressed_size for n in range(group.num_columns)]
        data = path.read_bytes()
        (length,) = struct.unpack("<I", data[-8:-4])
        body, footer, tail = data[: -8 - length], data[-8 - length : -8], data[-8:]
        for size in sizes:
            said = varint(size)
            lie = bytes([0x80 | 2, *[0x80] * (len(said) - 2), 0]) if len(said) > 1 else said
            footer = footer.replace(said, lie) if size > 2**20 else footer
        path.write_bytes(body + footer + tail)

    return write_and_lie


def varint(number: int) -> bytes:
    """As Thrift's compact protocol writes it."""
    rest, out = number * 2, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def many_columns(columns: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        more = {f"c{n}": pa.array([1], pa.int8()) for n in range(columns)}
        written(path, table(zeros(4), **more))

    return write


def many_groups(groups: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        rows = table(zeros(4))
        with pq.ParquetWriter(path, rows.schema) as writer:
            for _ in range(groups):
                writer.write_table(rows)

    return write


def footer_of(*, groups: int) -> Callable[[Path], None]:
    """A footer by hand: a list of row groups that are three bytes each and empty."""

    def write(path: Path) -> None:
        # FileMetaData: 1 version (i32), 2 schema (list of structs), 3 num_rows (i64), 4 row groups
        root = b"\x48\x04root\x15\x00\x00"
        count = bytearray()
        rest = groups
        while rest > 0x7F:
            count.append(rest & 0x7F | 0x80)
            rest >>= 7
        count.append(rest)
        group = b"\x19\x0c\x16\x00\x16\x00\x00"  # no columns, 0 bytes, 0 rows
        footer = b"\x15\x04\x19\x1c" + root + b"\x16\x00\x19\xfc" + bytes(count)
        footer += group * groups + b"\x00"
        path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")

    return write


def pictures(*files: bytes, rows: int = 100) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        held = pa.array(list(files), pa.binary())
        indices = pa.array(np.arange(rows, dtype=np.int32) % len(files))
        written(path, table(pa.DictionaryArray.from_arrays(indices, held)))

    return write


def lazily(make: Callable[[], bytes], rows: int = 100) -> Callable[[Path], None]:
    return lambda path: pictures(make(), rows=rows)(path)


def png(width: int, height: int, mode: str = "L") -> bytes:
    """A white image that is never in memory as a whole."""
    channels, bits = {"1": (1, 1), "L": (1, 8), "RGB": (3, 8)}[mode]
    line = b"\0" + b"\xff" * ((width * channels * bits + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 2 if channels == 3 else 0, 0, 0, 0)
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        out += struct.pack(">I", len(body)) + kind + body
        out += struct.pack(">I", zlib.crc32(kind + body))
    return out


def gif(frames: int) -> bytes:
    pages = [Image.new("P", (2000, 2000), n % 2) for n in range(frames)]
    return encoded(pages[0], "GIF", save_all=True, append_images=pages[1:])


CASES = [
    Case("honest arrays of 3 kB", "arrays", honest_arrays, [3072]),
    Case("an id of 256 MB, 4,096 times", "arrays", value_repeated(256 * MB, 4096, "id"), [4]),
    Case("an id of 1 MB, 50,000 times", "arrays", value_repeated(MB, 50_000, "id"), [4]),
    Case("the same, with a footer that lies", "arrays",
         lying(value_repeated(MB, 50_000, "id")), [4]),
    Case("20 million rows alike", "arrays", many_rows(20_000_000), [1]),
    Case("a row of 1 GB in one page, zstd", "arrays", one_page("zstd", 250 * MB), [250 * MB]),
    Case("a row of 1 GB in one page, gzip", "arrays", one_page("gzip", 250 * MB), [250 * MB]),
    Case("a row of 1 GB in one page, brotli", "arrays", one_page("brotli", 250 * MB), [250 * MB]),
    Case("a row of 200 MB in one page", "arrays", one_page("zstd", 50 * MB), [50 * MB]),
    Case("50,000 columns", "arrays", many_columns(50_000), [4]),
    Case("9,000 columns", "arrays", many_columns(9_000), [4]),
    Case("20,000 row groups", "arrays", many_groups(20_000), [4]),
    Case("a footer of a million empty row groups", "arrays", footer_of(groups=10**6), [4]),
    Case("a footer of 150,000 empty row groups", "arrays", footer_of(groups=150_000), [4]),
    Case("honest photos of 12 megapixels", "images", honest_photos),
    Case("images of 1 MB, 50,000 times", "images", value_repeated(MB, 50_000)),
    Case("PNG of 25 megapixels", "images", lazily(lambda: png(5010, 5010))),
    Case("PNG of 25 megapixels, in colour", "images", lazily(lambda: png(5010, 5010, "RGB"))),
    Case("PNG of 4 gigapixels", "images", lazily(lambda: png(65_000, 65_000, "1"), rows=4)),
    Case("PNG of 1 megapixel, 50,000 times", "images", lazily(lambda: png(1000, 1000), 50_000)),
    Case("WebP of 25 megapixels", "images",
         lazily(lambda: encoded(Image.new("RGB", (5010, 5010)), "WEBP", lossless=True))),
    Case("TIFF of 25 megapixels", "images",
         lazily(lambda: encoded(Image.new("RGB", (5010, 5010)), "TIFF", compression="tiff_lzw"))),
    Case("JPEG of 25 megapixels, progressive", "images",
         lazily(lambda: encoded(Image.new("RGB", (5010, 5010)), "JPEG", progressive=True))),
    Case("JPEG 2000 of 25 megapixels, 8,000 tiles", "images",
         lazily(lambda: encoded(Image.new("RGB", (4992, 4992)), "JPEG2000", tile_size=(64, 64)))),
    Case("JPEG 2000 of 25 megapixels, one tile", "images",
         lazily(lambda: encoded(Image.new("RGB", (5010, 5010)), "JPEG2000"))),
    Case("GIF of 300 frames", "images", lazily(lambda: gif(300))),
]  # fmt: skip
