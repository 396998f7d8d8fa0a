"""Writes the committed test vectors of the runtime.

    python vectors.py MODEL -o vectors/demo.bin                 free running only
    python vectors.py MODEL TRACE_DIR -o vectors/demo.bin       and forced: TRACE_DIR/{one,chat,story}/trace.{json,bin}
    python vectors.py MODEL TRACE_DIR --cache q16               only compares: traces of a cache of integers
    python vectors.py MODEL --print-tokens                      the token ids of the prompts, for the trace writer

With traces, every trace is compared first, and nothing is written if one fails. README.md describes the file.
"""

import argparse
import hashlib
import json
import struct
import sys
from pathlib import Path

import numpy as np

from demo_tokenizer import tokenizer_of
from gguf import Gguf
from reference import Forced, Model, Trace, compare_forced, compare_free, exact_cache, f16_cache, q16_cache, relative

# Chosen among many so that no value of theirs is rounded differently by a float32 runtime with the shipped model, neither an activation nor a
# key or value on its way into the f16 cache.
PROMPTS = {
    "one": "<|begin_of_text|>",
    "chat": "<|begin_of_text|>User: Write me a short story about a boy named Sam.<|eot_id|>Assistant: ",
    "story": "<|begin_of_text|>Once upon a time, a clever hedgehog named Bubbles lived in a small house. One spring day he ran to the forest to play. "
             "In the grass he found a green bell. A duck came and looked at the bell. There was a loud noise, but Bubbles was brave.",
}
ROWS = 16               # logits are kept for the last 16 positions


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model")
    ap.add_argument("traces", nargs="?")
    ap.add_argument("-o", "--out")
    ap.add_argument("--cache", choices=["f16", "q16"], default="f16", help="what the traces stored keys and values as")
    ap.add_argument("--print-tokens", action="store_true")
    a = ap.parse_args()
    if a.out and a.cache != "f16":
        ap.error("the committed vectors are of f16")
    cache = f16_cache if a.cache == "f16" else q16_cache
    tok = tokenizer_of(Gguf(a.model))
    prompts = {n: tok.encode(p, add_special_tokens=False).ids for n, p in PROMPTS.items()}
    if a.print_tokens:
        for n, ids in prompts.items():
            print(n, ",".join(map(str, ids)))
        return
    model = Model(a.model)
    sha = hashlib.sha256(Path(a.model).read_bytes()).hexdigest()
    blob = bytearray(b"TRLV" + struct.pack("<II", 1, len(prompts)))
    info, ok = {"model_sha256": sha, "prompts": []}, True
    for name, ids in prompts.items():
        near = []
        z = model.forward(ids, lambda _, q, u, amax: near.append(np.abs(np.abs(u) % 1.0 - 0.5).min()) or q, cache)
        forced, first_flip = None, None
        if a.traces:
            t = Trace(Path(a.traces) / name)
            if list(t.tokens) != ids:
                sys.exit(f"{name}: the trace is of other tokens")
            print(name, end=" ")
            passed, forced, first_flip = compare_forced(model, t, cache=cache)
            # What rounding keys and values costs: the same activations, and a cache that rounds nothing.
            away = relative(t.arrays["logits"].astype(np.float64), model.forward(t.tokens, Forced(t), exact_cache))
            print(f"{name} with {a.cache} away from an exact cache: median {np.median(away):.1e}, worst {away.max():.1e}")
            print(name, end=" ")
            # Weights of values are rounded as well: values are on the other side of a boundary from the first position on.
            ok &= passed & compare_free(t.arrays["logits"], z, first_flip if a.cache == "f16" else 0)
        first = max(0, len(ids) - ROWS)
        blob += struct.pack("<I", len(name)) + name.encode()
        blob += struct.pack("<I", len(ids)) + np.array(ids, "<u4").tobytes() + z.argmax(-1).astype("<u4").tobytes()
        blob += struct.pack("<IIII", first, len(ids) - first, z.shape[1], int(forced is not None))
        blob += z[first:].astype("<f4").tobytes()
        if forced is not None:
            blob += forced[first:].astype("<f4").tobytes()
        info["prompts"].append({"name": name, "text": PROMPTS[name], "tokens": ids, "first_row": first, "forced": forced is not None, "nearest": float(f"{min(near):.3g}")})
    if not ok:
        sys.exit("a comparison failed")
    if a.out:
        out = Path(a.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(blob)
        out.with_suffix(".json").write_text(json.dumps(info, indent=1) + "\n")
        print(out, len(blob), "bytes")


if __name__ == "__main__":
    main()
