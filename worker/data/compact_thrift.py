"""Thrift's compact protocol, without a schema: what is read is written again, field by field.

So a structure can be changed in one place and keeps all that this code does not know. It is a dict
from field number to value; a value carries its type on the wire.
"""

import struct
from dataclasses import dataclass
from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = range(1, 14)

DEEPEST = 64
"""Structures in structures. Parquet needs about eight; more is an attack."""


@dataclass(slots=True)
class Value:
    """A value, and its type on the wire.

    Numbers are int, double is float, binary is bytes; a structure is a dict, a list or set is a
    `Sequence`, a map is kept as the bytes it was.
    """

    kind: int
    data: Any


Struct = dict[int, Value]


@dataclass(slots=True)
class Sequence:
    """The elements of a list or set, all of one type."""

    kind: int
    items: list[Any]


class Reader:
    """Reads structures from bytes, one after the other."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at
        """Where the next byte is read."""

    def struct(self, depth: int = 0) -> Struct:
        """The next structure.

        Raises:
            ValueError: the bytes are no structure, or end before it does.
        """
        if depth > DEEPEST:
            raise ValueError("structures are nested too deeply")
        fields: Struct = {}
        number = 0
        while header := self._byte():
            kind, step = header & 0x0F, header >> 4
            number = number + step if step else _unzigzag(self._varint())
            fields[number] = Value(kind, self._value(kind, depth))
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == BYTE:
            return self._byte()
        if kind in (I16, I32, I64):
            return _unzigzag(self._varint())
        if kind == DOUBLE:
            return struct.unpack("<d", self._take(8))[0]
        if kind == BINARY:
            return self._take(self._varint())
        if kind == UUID:
            return self._take(16)
        if kind in (LIST, SET):
            return self._sequence(depth)
        if kind == MAP:
            return self._map(depth)
        if kind == STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"there is no type {kind}")

    def _sequence(self, depth: int) -> Sequence:
        header = self._byte()
        kind, size = header & 0x0F, header >> 4
        size = self._varint() if size == 15 else size
        if size > len(self.data) - self.at:  # each takes a byte at least
            raise ValueError("a list is longer than the bytes it is in")
        return Sequence(kind, [self._element(kind, depth) for _ in range(size)])

    def _element(self, kind: int, depth: int) -> Any:
        return self._byte() if kind in (TRUE, FALSE) else self._value(kind, depth)

    def _map(self, depth: int) -> bytes:
        start = self.at
        if size := self._varint():
            kinds = self._byte()
            for _ in range(size):
                self._element(kinds >> 4, depth + 1)
                self._element(kinds & 0x0F, depth + 1)
        return self.data[start : self.at]

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("a number is too long")

    def _byte(self) -> int:
        if self.at >= len(self.data):
            raise ValueError("the bytes end in a structure")
        self.at += 1
        return self.data[self.at - 1]

    def _take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("the bytes end in a structure")
        self.at += size
        return self.data[self.at - size : self.at]


def written(fields: Struct) -> bytes:
    """A structure as bytes, its fields in the order of their numbers."""
    out = bytearray()
    _write_struct(out, fields)
    return bytes(out)


def _write_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number in sorted(fields):
        value = fields[number]
        kind = value.kind if value.kind not in (TRUE, FALSE) else TRUE if value.data else FALSE
        if 0 < number - before < 16:
            out.append((number - before) << 4 | kind)
        else:
            out.append(kind)
            _write_varint(out, _zigzag(number))
        before = number
        if kind not in (TRUE, FALSE):
            _write(out, kind, value.data)
    out.append(0)


def _write(out: bytearray, kind: int, data: Any) -> None:
    if kind in (TRUE, FALSE, BYTE):
        out.append(data)
    elif kind in (I16, I32, I64):
        _write_varint(out, _zigzag(data))
    elif kind == DOUBLE:
        out += struct.pack("<d", data)
    elif kind == BINARY:
        _write_varint(out, len(data))
        out += data
    elif kind in (LIST, SET):
        size = len(data.items)
        out.append(min(size, 15) << 4 | data.kind)
        if size >= 15:
            _write_varint(out, size)
        for item in data.items:
            _write(out, data.kind, item)
    elif kind == STRUCT:
        _write_struct(out, data)
    else:
        out += data


def _write_varint(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


def _unzigzag(number: int) -> int:
    return number >> 1 if not number & 1 else -(number >> 1) - 1
