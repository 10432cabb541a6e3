"""Maps of sparse files: old GNU headers, PAX 0.0, 0.1 and 1.0.

Pure; called by `layer.tar`. Formats: GNU tar manual, "Storing Sparse Files". A map lists the stored pieces of
a file; what lies between them is zeros.
"""

from typing import Final

from layerfs.errors import BudgetExceeded, InvalidArchive
from layerfs.layer.member import Member, Source
from layerfs.layer.numbers import decimal, number
from layerfs.layer.paths import shown
from layerfs.layer.pax import SPARSE, Records

Extents = list[tuple[int, int]]

_BLOCK: Final = 512
_PAIR: Final = 24
_SIZE_MAX: Final = 1 << 63


def read_old_gnu(member: Member, header: bytes, source: Source, budget: int) -> None:
    """Complete a member of type ``S`` from its header and the extension blocks that follow it."""
    extents = _pairs(header[386:482])
    extended, read = header[482], 0
    while extended:
        block = source.block()
        read += _BLOCK
        if not block:
            raise InvalidArchive(f"{shown(member.name)}: the archive ends in a sparse map")
        _check_budget(read, member, budget)
        extents += _pairs(block[:504])
        extended = block[504]
    _complete(member, extents, number(header[483:495], f"{shown(member.name)}: size of the sparse file"))


def _pairs(field: bytes) -> Extents:
    found = []
    for at in range(0, len(field), _PAIR):
        if field[at] == 0:
            break
        offset = number(field[at : at + 12], "offset in a sparse map")
        found.append((offset, number(field[at + 12 : at + _PAIR], "length in a sparse map")))
    return found


def read_pax(member: Member, records: Records, source: Source, budget: int) -> None:
    """Complete *member* if its PAX records say that it is sparse."""
    last = {key[len(SPARSE) :]: value for key, value in records if key.startswith(SPARSE)}
    keys = {key: value for key, value in last.items() if value or key == b"map"}  # which may list nothing
    if not keys:
        return
    major, minor = keys.get(b"major"), keys.get(b"minor")
    if (major, minor) == (b"1", b"0"):
        extents = _map_in_content(member, source, budget)
    elif major is not None and major != b"0":
        raise InvalidArchive(f"{shown(member.name)}: sparse format {major!r}.{minor!r} (expected 0.0 to 1.0)")
    elif b"map" in keys:
        extents = _map_in_record(keys[b"map"])
    elif b"offset" in keys or b"numblocks" in keys:
        extents = _map_in_records(records)
    else:
        return
    member.name = keys.get(b"name", member.name)
    size = keys.get(b"realsize") if major == b"1" else keys.get(b"size")
    if size is None:
        raise InvalidArchive(f"{shown(member.name)}: a sparse file without a size")
    _complete(member, extents, decimal(size, f"{shown(member.name)}: size of the sparse file"))


def _map_in_records(records: Records) -> Extents:
    """Format 0.0: offset and numbytes in turn."""
    wanted = (SPARSE + b"offset", SPARSE + b"numbytes")
    numbers = [(key, value) for key, value in records if key in wanted]
    if len(numbers) % 2 or any(key != wanted[at % 2] for at, (key, _) in enumerate(numbers)):
        raise InvalidArchive("sparse map 0.0: offsets and lengths do not alternate")
    return _paired([value for _, value in numbers])


def _map_in_record(value: bytes) -> Extents:
    """Format 0.1: one record with all numbers."""
    numbers = value.split(b",") if value else []
    if len(numbers) % 2:
        raise InvalidArchive("sparse map 0.1: an offset without a length")
    return _paired(numbers)


def _map_in_content(member: Member, source: Source, budget: int) -> Extents:
    """Format 1.0: lines in front of the content, padded to a block: their count, then the numbers."""
    text, lines, wanted = b"", [b""], 1
    numbers: list[bytes] = []
    while len(numbers) < wanted:
        block = source.block() if member.stored >= _BLOCK else b""
        if not block:
            raise InvalidArchive(f"{shown(member.name)}: the sparse map 1.0 does not end")
        member.stored -= _BLOCK
        text += block
        *lines, text = text.split(b"\n")
        if len(text) > 2 * _BLOCK:
            raise InvalidArchive(f"{shown(member.name)}: the sparse map 1.0 is malformed")
        numbers += lines
        if wanted == 1 and numbers:
            wanted += 2 * decimal(numbers[0], "sparse map 1.0: count")
            _check_budget(wanted * 2, member, budget)
    return _paired(numbers[1:wanted])


def _paired(numbers: list[bytes]) -> Extents:
    values = [decimal(value, "sparse map") for value in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def _check_budget(size: int, member: Member, budget: int) -> None:
    if size > budget:
        raise BudgetExceeded(f"{shown(member.name)}: sparse map of more than {budget} bytes (max_pax_bytes)")


def _complete(member: Member, extents: Extents, size: int) -> None:
    """Check the map against itself, the size and the stored bytes."""
    position = 0
    for offset, length in extents:
        if offset < position or length < 0:
            raise InvalidArchive(f"{shown(member.name)}: the pieces of the sparse file overlap or go back")
        position = offset + length
    if position > size or size >= _SIZE_MAX:
        raise InvalidArchive(f"{shown(member.name)}: a piece lies beyond the sparse file's end ({size})")
    if sum(length for _, length in extents) != member.stored:
        raise InvalidArchive(
            f"{shown(member.name)}: {member.stored} bytes stored (expected what the sparse map sums up to)"
        )
    member.extents = [extent for extent in extents if extent[1]]
    member.size = size
