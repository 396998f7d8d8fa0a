"""Writes the committed vectors of the tiny models of every family.

    TRILUT_FAMILIES=DIR cargo test -p trilut-runtime --test families models_and_traces     writes DIR/NAME/{model.gguf,trace.json,trace.bin}
    python families.py DIR -o vectors/families.bin

Every trace is compared first, and nothing is written if one fails. README.md describes the file.
"""

import argparse
import struct
import sys
from pathlib import Path

from reference import Model, Trace, compare_forced, compare_free

NAMES = ["bitnet-2b-4t", "bitnet-25", "bitnet-large", "bitnet-3b", "llama3-8b", "falcon3-7b", "embedding-0.6b", "embedding-270m",
         "gemma3-local", "groups"]


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("directory")
    ap.add_argument("-o", "--out", required=True)
    a = ap.parse_args()
    blob, ok = bytearray(b"TRLF" + struct.pack("<I", 1)), True
    for name in NAMES:
        model, t = Model(Path(a.directory) / name / "model.gguf"), Trace(Path(a.directory) / name)
        free = model.forward(t.tokens)
        print(name, end=" ")
        passed, forced, first_flip = compare_forced(model, t)
        print(name, end=" ")
        ok &= passed & compare_free(t.arrays["logits"], free, first_flip)
        blob += struct.pack("<III", len(name), min(first_flip, len(t.tokens)), free.size) + name.encode()
        blob += free.astype("<f4").tobytes() + forced.astype("<f4").tobytes()
    if not ok:
        sys.exit("a comparison failed: nothing written")
    Path(a.out).write_bytes(blob)
    print(a.out, len(blob), "bytes")


if __name__ == "__main__":
    main()
