"""One record of the online store as bytes: all materialized values of one entity.

    bytes             content
    2                 format
    4                 CRC-32 of all that follows
    8                 digest of names, types and feature definitions
    8                 feature time, int64, microseconds since 1970 (UTC)
    (n + 7) / 8       one bit for each missing value
    8 each            float64, int64 and boolean values
    4 each            lengths of the string values
    ...               the string values, UTF-8

Little endian. Belongs here: the layout. Where records are kept is sqlite.py's and redis.py's.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, get_args
from zlib import crc32

from mlops_pipeline.config.tables import FeatureType
from mlops_pipeline.errors import DataError, OnlineCorruptError, OnlineDefinitionError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

FORMAT = b"\xf5\x01"  # a byte that begins no text, and the version of the layout
PREFIX = struct.Struct("<2sI")
SEAL = struct.Struct("<I")
DIGEST_BYTES = 8
SLOT_CODES = {"float64": "d", "int64": "q", "boolean": "?7x"}
ARROW_TYPES = {"float64": "double", "int64": "int64", "boolean": "bool"}

Scalar = float | int | str | bool | None


class Record(NamedTuple):
    """What one record holds; values in the order of the schema's names."""

    feature_time_us: int
    values: tuple[Scalar, ...]


class RecordSchema:
    """The layout of a table's records: features in order, types, and a hash of what they mean."""

    def __init__(
        self, names: Sequence[str], dtypes: Sequence[FeatureType], definition: str
    ) -> None:
        self.names = tuple(names)
        self.dtypes = tuple(dtypes)
        _check(self.names, self.dtypes)
        count = len(self.names)
        content = json.dumps([self.names, self.dtypes, definition]).encode()
        self._digest = hashlib.sha256(content).digest()[:DIGEST_BYTES]
        self._slots = [n for n in range(count) if self.dtypes[n] != "string"]
        self._texts = [n for n in range(count) if self.dtypes[n] == "string"]
        codes = "".join(SLOT_CODES[self.dtypes[n]] for n in self._slots)
        self._bitmap_bytes = (count + 7) // 8
        self._fixed = struct.Struct(
            f"<{DIGEST_BYTES}sq{self._bitmap_bytes}s{codes}{len(self._texts)}I"
        )
        self._least_bytes = PREFIX.size + self._fixed.size
        order = self._slots + self._texts
        self._place = sorted(range(count), key=order.__getitem__)  # schema's place -> stored place

    def decode(self, blob: bytes) -> Record:
        """Unpack one record; one with another byte, or of other definitions, is refused."""
        if len(blob) < PREFIX.size:
            _corrupt(f"{len(blob)} bytes")
        mark, checksum = PREFIX.unpack_from(blob)
        if mark != FORMAT:
            _corrupt(f"format {mark.hex()}")
        if crc32(memoryview(blob)[PREFIX.size :]) != checksum:
            _corrupt("another checksum")
        if not blob.startswith(self._digest, PREFIX.size):
            raise OnlineDefinitionError(
                "a stored record is of other feature definitions",
                way_out="materialize the features again",
            )
        if len(blob) < self._least_bytes:
            _corrupt(f"{len(blob)} bytes")
        _, feature_time_us, bitmap, *stored = self._fixed.unpack_from(blob, PREFIX.size)
        values = self._with_texts(blob, stored) if self._texts else stored
        missing = int.from_bytes(bitmap, "little")
        while missing:
            lowest = missing & -missing
            values[lowest.bit_length() - 1] = None
            missing ^= lowest
        return Record(feature_time_us, tuple(values))

    def _with_texts(self, blob: bytes, stored: list[Any]) -> list[Any]:
        """Put the text in the place of its length, and everything in the schema's order."""
        begin = self._least_bytes
        for place in range(len(self._slots), len(stored)):
            end = begin + stored[place]
            stored[place] = blob[begin:end].decode()
            begin = end
        return [stored[place] for place in self._place]

    def encode_batch(
        self, data: "pa.Table | pa.RecordBatch", feature_time_us: "int | np.ndarray[Any, Any]"
    ) -> list[bytes]:
        """Pack every row: a column for each name, of exactly its type; one time, or one a row."""
        columns = [
            _column(data, name, kind) for name, kind in zip(self.names, self.dtypes, strict=True)
        ]
        fixed = self._fixed_part(columns, data.num_rows, feature_time_us)
        texts = self._text_part(columns, data.num_rows)
        width = self._fixed.size
        pack, records = PREFIX.pack, []
        for begin, text in zip(range(0, len(fixed), width), texts, strict=True):
            body = fixed[begin : begin + width] + text
            records.append(pack(FORMAT, crc32(body)) + body)
        return records

    def _fixed_part(self, columns: Sequence[Any], rows: int, feature_time_us: Any) -> bytes:
        """Return everything of fixed width, row after row, without format and checksum."""
        import numpy as np
        import pyarrow.compute as pc

        layout = np.dtype(
            [
                ("digest", f"V{DIGEST_BYTES}"),
                ("time", "<i8"),
                ("bitmap", "u1", (self._bitmap_bytes,)),
                ("slots", "<u8", (len(self._slots),)),
                ("lengths", "<u4", (len(self._texts),)),
            ]
        )
        found = np.zeros(rows, layout)
        found["digest"] = np.void(self._digest)
        found["time"] = feature_time_us
        missing = np.zeros((rows, len(columns)), bool)
        for number, column in enumerate(columns):
            if column.null_count:
                missing[:, number] = column.is_null().to_numpy(zero_copy_only=False)
        found["bitmap"] = np.packbits(missing, axis=1, bitorder="little")
        for place, number in enumerate(self._slots):
            found["slots"][:, place] = _bits(columns[number])
        for place, number in enumerate(self._texts):
            found["lengths"][:, place] = pc.binary_length(_filled(columns[number])).to_numpy()
        return found.tobytes()

    def _text_part(self, columns: Sequence[Any], rows: int) -> Any:
        """Iterate over the texts of each row, joined."""
        if not self._texts:
            return repeat(b"", rows)
        texts = [_filled(columns[number]).to_pylist() for number in self._texts]
        return texts[0] if len(texts) == 1 else map(b"".join, zip(*texts, strict=True))


def _check(names: Sequence[str], dtypes: Sequence[str]) -> None:
    unknown = set(dtypes) - set(get_args(FeatureType))
    if len(names) != len(dtypes) or len(set(names)) != len(names) or unknown:
        raise DataError(
            "a schema of records needs one known type for each of its distinct names",
            expected=", ".join(get_args(FeatureType)),
            found=f"names {', '.join(names)}; types {', '.join(dtypes)}",
        )


def _corrupt(found: str) -> NoReturn:
    raise OnlineCorruptError(
        "a stored record is damaged",
        expected="the bytes as they were written",
        found=found,
        way_out="materialize the features again",
    )


def _column(data: Any, name: str, kind: str) -> Any:
    """Return a column in one piece, strings as their UTF-8 bytes."""
    import pyarrow as pa

    if name not in data.schema.names:
        raise DataError("a feature has no column", where=name, found=", ".join(data.schema.names))
    column = data.column(name)
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if kind == "string" and (
        pa.types.is_string(whole.type) or pa.types.is_large_string(whole.type)
    ):
        return whole.cast(pa.large_binary())
    if str(whole.type) != ARROW_TYPES.get(kind):
        raise DataError(
            "a column has another type than its feature",
            where=name,
            expected=kind,
            found=str(whole.type),
        )
    return whole


def _filled(column: Any) -> Any:
    """Return the column with a zero, false or empty text where a value is missing."""
    import pyarrow as pa

    if not column.null_count:
        return column
    zero = b"" if pa.types.is_large_binary(column.type) else 0
    return column.fill_null(pa.scalar(zero).cast(column.type))


def _bits(column: Any) -> Any:
    """Return the 64 bits of each number, or 0 and 1."""
    values = _filled(column).to_numpy(zero_copy_only=False)
    return values.view("<u8") if values.dtype.itemsize == 8 else values


def seal(content: bytes) -> bytes:
    """Put a checksum before bytes of any other layout, for example the payload of an event."""
    return SEAL.pack(crc32(content)) + content


def unseal(sealed: bytes) -> bytes:
    """Return the content of sealed bytes; where one is not as it was sealed, they are refused."""
    content = sealed[SEAL.size :]
    if len(sealed) < SEAL.size or SEAL.unpack_from(sealed)[0] != crc32(content):
        raise OnlineCorruptError(
            "a stored event is damaged",
            expected="the bytes as they were written",
            found="another checksum",
            way_out="drop the stream and fill it again",
        )
    return content
