"""A small GGUF reader (v2 and v3, little endian), for the tensor types a ternary model file needs.

    python gguf.py MODEL      lists metadata and tensors
"""

import mmap
import struct
import sys

import numpy as np

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
F32, F16, BF16, TQ2_0, I2_S = 0, 1, 30, 35, 36


class Gguf:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self.at = 4
        if self.data[:4] != b"GGUF":
            raise ValueError("not a GGUF file")
        self.version = self.scalar("<I")
        if self.version not in (2, 3):
            raise ValueError(f"GGUF version {self.version} is not supported")
        n_tensors, n_meta = self.scalar("<Q"), self.scalar("<Q")
        self.meta = {}
        for _ in range(n_meta):
            name = self.string()
            self.meta[name] = self.value(self.scalar("<I"))
        self.tensors = {}                                   # name -> (dims, ne0 first; type; offset from the data section)
        for _ in range(n_tensors):
            name = self.string()
            dims = [self.scalar("<Q") for _ in range(self.scalar("<I"))]
            kind, offset = self.scalar("<I"), self.scalar("<Q")
            self.tensors[name] = (dims, kind, offset)
        align = self.meta.get("general.alignment", 32)
        self.base = (self.at + align - 1) // align * align

    def scalar(self, fmt):
        v, = struct.unpack_from(fmt, self.data, self.at)
        self.at += struct.calcsize(fmt)
        return v

    def string(self):
        n = self.scalar("<Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, n = self.scalar("<I"), self.scalar("<Q")
            return [self.value(item) for _ in range(n)]
        return self.scalar(SCALARS[kind])

    def kind(self, name):
        return self.tensors[name][1]

    def shape(self, name):
        """rows first: a weight of M outputs and K inputs is (M, K)"""
        return tuple(self.tensors[name][0][::-1])

    def raw(self, name, nbytes):
        start = self.base + self.tensors[name][2]
        if start + nbytes > len(self.data):
            raise ValueError(f"{name} ends after the end of the file")
        return self.data[start:start + nbytes]

    def float(self, name):
        """A float tensor as float64, in its shape."""
        shape, kind = self.shape(name), self.kind(name)
        n = int(np.prod(shape))
        if kind == F32:
            x = np.frombuffer(self.raw(name, 4 * n), "<f4")
        elif kind == F16:
            x = np.frombuffer(self.raw(name, 2 * n), "<f2")
        elif kind == BF16:
            x = (np.frombuffer(self.raw(name, 2 * n), "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            raise ValueError(f"{name}: type {kind} is not a float type")
        return x.astype(np.float64).reshape(shape)

    def ternary(self, name):
        """An I2_S tensor: (t int8 [M, K], scale f32); a TQ2_0 tensor: (weights float64 [M, K], 1)."""
        m, k = self.shape(name)
        if self.kind(name) == TQ2_0:
            return decode_tq2(self.raw(name, m * k // 256 * 66), m, k), np.float32(1)
        if self.kind(name) != I2_S:
            raise ValueError(f"{name}: type {self.kind(name)} is not I2_S")
        return decode_i2s(self.raw(name, m * k // 4 + 32), m, k)


def decode_i2s(raw, m, k):
    """Blocks of 128 weights in 32 bytes; byte j: weights j, 32+j, 64+j, 96+j from the high bits down; code = t + 1."""
    if m * k % 128:
        raise ValueError(f"{m} x {k} is not a multiple of 128 weights")
    packed = np.frombuffer(raw, np.uint8, m * k // 4).reshape(-1, 1, 32)        # [block, 1, byte]
    codes = packed >> np.array([6, 4, 2, 0], np.uint8).reshape(1, 4, 1) & 3      # [block, plane, byte]
    if codes.max() > 2:
        raise ValueError("code 3 is not a ternary weight")
    scale, = struct.unpack_from("<f", raw, m * k // 4)
    return (codes.astype(np.int8) - 1).reshape(m, k), np.float32(scale)


def decode_tq2(raw, m, k):
    """Blocks of 256 weights in 64 bytes and an f16 scale; byte j of each 32: weights j, 32+j, 64+j, 96+j of 128 from the low bits up; code = t + 1."""
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, 66)
    packed = blocks[:, :64].reshape(-1, 2, 1, 32)                                # [block, half, 1, byte]
    codes = packed >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3   # [block, half, plane, byte]
    if codes.max() > 2:
        raise ValueError("code 3 is not a ternary weight")
    scales = np.ascontiguousarray(blocks[:, 64:]).view("<f2").astype(np.float64)
    return ((codes.astype(np.float64) - 1).reshape(-1, 256) * scales).reshape(m, k)


if __name__ == "__main__":
    g = Gguf(sys.argv[1])
    for name, v in g.meta.items():
        print(f"{name} = {v if not isinstance(v, list) else f'[{len(v)}] {v[:6]}...'}")
    for name, (dims, kind, offset) in g.tensors.items():
        print(f"{name:32s} {g.shape(name)} type {kind} at {g.base + offset}")
