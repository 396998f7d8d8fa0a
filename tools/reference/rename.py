"""Copies a GGUF file under another architecture, for engines that know its graph by another name.

    python rename.py IN.gguf OUT.gguf bitnet-b1.58 bitnet
"""

import struct
import sys

from gguf import ARRAY, SCALARS, STRING


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, fmt):
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def text(self):
        return self.take(self.number("<Q"))

    def value(self, kind):
        """The bytes of a value, passed over."""
        start = self.at
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            item, n = self.number("<I"), self.number("<Q")
            for _ in range(n):
                self.value(item)
        else:
            self.take(struct.calcsize(SCALARS[kind]))
        return self.data[start:self.at]


def text(b):
    return struct.pack("<Q", len(b)) + b


def main():
    source, target, old, new = sys.argv[1:]
    with open(source, "rb") as f:
        b = Bytes(f.read())
    out = bytearray(b.take(8))
    tensors, keys = b.number("<Q"), b.number("<Q")
    out += struct.pack("<QQ", tensors, keys)
    for _ in range(keys):
        key, kind = b.text(), b.number("<I")
        value = b.value(kind)
        if key == b"general.architecture":
            value = text(new.encode())
        if key.startswith(old.encode() + b"."):
            key = new.encode() + key[len(old):]
        out += text(key) + struct.pack("<I", kind) + value
    start = b.at
    for _ in range(tensors):
        b.text()
        b.take(8 * b.number("<I") + 12)
    out += b.data[start:b.at]
    out += bytes(-len(out) % 32) + b.data[b.at + -b.at % 32:]
    with open(target, "wb") as f:
        f.write(out)


if __name__ == "__main__":
    main()
