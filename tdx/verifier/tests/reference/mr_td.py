#!/usr/bin/env python3
"""A second implementation of how MR_TD follows from a TDVF image: short, slow, standard library only.

Written from Intel's descriptions (TDX Virtual Firmware Design Guide, TDX Module ABI); shares no code with the crate.

    mr_td.py FIRMWARE
"""

import hashlib
import struct
import sys
import uuid

PAGE = 4096


def sections(image):
    """What the metadata list: content, address, bytes of memory, attributes."""
    table = image[: len(image) - 32]
    footer = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    wanted = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
    if table[-16:] != footer:
        sys.exit("no TDVF metadata")
    (length,) = struct.unpack("<H", table[-18:-16])
    table = table[len(table) - length : -18]
    while table:
        (length,) = struct.unpack("<H", table[-18:-16])
        if table[-16:] == wanted:
            (offset,) = struct.unpack("<I", table[len(table) - length :][:4])
            break
        table = table[: len(table) - length]
    else:
        sys.exit("no TDVF metadata")
    metadata = image[len(image) - offset :]
    signature, _, version, count = struct.unpack_from("<4sIII", metadata)
    assert signature == b"TDVF" and version == 1
    for number in range(count):
        start, size, address, memory, _, attributes = struct.unpack_from("<IIQQII", metadata, 16 + 32 * number)
        yield image[start : start + size].ljust(memory, b"\0"), address, memory, attributes


def operation(name, address):
    """The 128 bytes that are hashed for an operation of the TDX module."""
    return name.ljust(16, b"\0") + struct.pack("<Q", address) + bytes(104)


def added(address, page):
    return operation(b"MEM.PAGE.ADD", address + page)


def measured(content, address, page):
    chunks = range(page, page + PAGE, 256)
    return b"".join(operation(b"MR.EXTEND", address + at) + content[at : at + 256] for at in chunks)


def mr_td(image, adds_first):
    digest = hashlib.sha384()
    for content, address, memory, attributes in sections(image):
        if attributes & 2:
            continue
        pages = range(0, memory, PAGE)
        if adds_first:
            for page in pages:
                digest.update(added(address, page))
        for page in pages:
            if not adds_first:
                digest.update(added(address, page))
            if attributes & 1:
                digest.update(measured(content, address, page))
    return digest.hexdigest()


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        firmware = file.read()
    print("page-by-page", mr_td(firmware, False))
    print("adds-first", mr_td(firmware, True))
