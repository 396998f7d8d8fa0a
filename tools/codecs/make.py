"""Writes golden vectors of the ternary codecs, made by other programs' own encoders.

    python make.py CONVERTER -o ../../runtime/tests/golden/codecs.jsonl

CONVERTER is utils/convert-hf-to-gguf-bitnet.py of bitnet.cpp; only its packing functions are taken from it. TQ1_0 and TQ2_0 are packed by the
PyPI package `gguf`. One JSON object a line: {"codec", "m", "k", "scale", "tile" (BM, BK, bm, if it has one), "bytes" (hex)}; the weights are those
of `weights` below.
"""

import argparse
import ast
import json
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import gguf


def weights(m, k):
    """Weight i is (s_i >> 16) % 3 - 1, s_(i+1) = (s_i * 1103515245 + 12345) mod 2^31, s_0 = m * k."""
    state, out = m * k, np.empty(m * k, np.int8)
    for i in range(m * k):
        out[i] = (state >> 16) % 3 - 1
        state = (state * 1103515245 + 12345) % (1 << 31)
    return out.reshape(m, k)


def packers(path):
    """The packing functions of the converter, without running the rest of it."""
    tree = ast.parse(Path(path).read_text())
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and ("tl1" in n.name or "tl2" in n.name or "i2_s" in n.name)]
    for n in wanted:
        n.returns, n.args.defaults = None, n.args.defaults
        for a in n.args.args:
            a.annotation = None
    space = {"np": np}
    exec(compile(ast.Module(wanted, []), path, "exec"), space)
    return space


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("converter")
    ap.add_argument("-o", "--out", required=True)
    a = ap.parse_args()
    space, lines = packers(a.converter), []

    def line(codec, w, scale, data, tile=None):
        m, k = w.shape
        entry = {"codec": codec, "m": m, "k": k, "scale": scale, **({"tile": tile} if tile else {}), "bytes": bytes(data).hex()}
        lines.append(json.dumps(entry))

    scale = 0.375
    w = weights(4, 256)
    line("i2_s", w, scale, space["quantize_to_i2_s"](w.astype(np.float32) * np.float32(scale)).tobytes())
    for name in ("TQ1_0", "TQ2_0"):
        data = gguf.quants.quantize(w.astype(np.float32) * np.float32(scale), gguf.GGMLQuantizationType[name])
        line(name.lower(), w, scale, data.tobytes())
    with tempfile.TemporaryDirectory() as d:
        out = Path(a.out).resolve()
        os.chdir(d)
        os.mkdir("include")

        def tiled(codec, m, k, bm, bk, bmm):
            Path("include/kernel_config.ini").write_text(f"[Kernels_0]\nm = {m}\nk = {k}\nbm = {bm}\nbk = {bk}\nbmm = {bmm}\n")
            w = weights(m, k)
            data = space[f"preprocess_weights_{codec}"](w.astype(np.float32)).astype(np.uint8).tobytes()
            data += bytes(-len(data) % 32) + struct.pack("<f", scale) + bytes(28)
            line(codec, w, scale, data, [bm, bk, bmm])

        tiled("tl1", 128, 128, 64, 64, 32)
        tiled("tl1", 128, 128, 128, 32, 64)
        tiled("tl2", 64, 288, 32, 96, 32)
        tiled("tl2", 64, 320, 64, 96, 32)
    out.write_text("\n".join(lines) + "\n")
    print(out, len(lines), "matrices")


if __name__ == "__main__":
    main()
