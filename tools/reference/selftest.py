"""Checks of the reference itself, without a runtime.

    python selftest.py MODEL        (torch is needed for the last check only; it is skipped where torch is absent)

1. The I2_S decoder against a direct encoder written from the layout's description, one weight at a time.
2. Every check of the comparison: a trace made by a float32 forward pass passes, and a trace with one wrong q, one wrong amax or one wrong
   logit does not.
3. The logits against the training graph's model, loaded from the same file.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np

from gguf import Gguf, decode_i2s
from reference import FLOOR, Model, Trace, compare_forced, compare_free, relative, exact_cache


def check_i2s():
    rng = np.random.default_rng(1)
    for m, k in ((1, 128), (3, 256), (5, 640), (2, 64)):
        t = rng.integers(-1, 2, (m, k))
        raw = bytearray(m * k // 4 + 32)
        for n, v in enumerate(t.reshape(-1)):
            block, i = divmod(n, 128)
            plane, byte = divmod(i, 32)
            raw[32 * block + byte] |= int(v + 1) << (6 - 2 * plane)
        raw[m * k // 4:m * k // 4 + 4] = struct.pack("<f", 0.37)
        got, s = decode_i2s(bytes(raw), m, k)
        assert (got == t).all() and s == np.float32(0.37)
    raw[0] |= 0xC0
    try:
        decode_i2s(bytes(raw), m, k)
        raise AssertionError("code 3 was accepted")
    except ValueError:
        pass


def trace_f32(model, tokens, folder):
    """A stand-in for the runtime: the same network with float32 values, written as a trace."""
    f = np.float32
    entries, blob = [], bytearray()

    def put(name, x, kind):
        entries.append({"name": name, "dtype": kind, "shape": list(x.shape), "offset": len(blob)})
        blob.extend(np.ascontiguousarray(x).tobytes())

    def rms(x, w):
        return (x / np.sqrt((x * x).mean(-1, keepdims=True, dtype=f) + f(model.eps)) * w.astype(f)).astype(f)

    def quantise(name, x):
        amax = np.maximum(np.abs(x).max(-1, keepdims=True), f(FLOOR))
        q = np.clip(np.rint(x * (f(127) / amax)), -127, 127)
        put(name + ".q", q.astype(np.int8), "i8")
        put(name + ".amax", amax[:, 0], "f32")
        return q, amax

    def lin(l, name, q, amax):
        t, s = model.linear[l, name]
        return (q.astype(np.float64) @ t.T).astype(f) * (f(s) * (amax / f(127)))

    def rope(x):
        half = model.E // 2
        angle = np.arange(len(x))[:, None, None] * model.theta ** (-2.0 * np.arange(half) / model.E)
        c, s = np.cos(angle).astype(f), np.sin(angle).astype(f)
        return np.concatenate([x[..., :half] * c - x[..., half:] * s, x[..., half:] * c + x[..., :half] * s], -1)

    T = len(tokens)
    h = model.embd[tokens].astype(f)
    causal = np.where(np.tril(np.ones((T, T), bool)), f(0), f(-np.inf))
    for l in range(model.layers):
        q8 = quantise(f"blk.{l}.attn_qkv", rms(h, model.norm[l, "attn_norm"]))
        q = rope(lin(l, "attn_q", *q8).reshape(T, model.H, model.E))
        k = rope(lin(l, "attn_k", *q8).reshape(T, model.G, model.E)).repeat(model.H // model.G, 1)
        v = lin(l, "attn_v", *q8).reshape(T, model.G, model.E).repeat(model.H // model.G, 1)
        z = np.einsum("ihe,jhe->hij", q, k) * f(model.E ** -0.5) + causal
        p = np.exp(z - z.max(-1, keepdims=True))
        o = np.einsum("hij,jhe->ihe", p / p.sum(-1, keepdims=True), v).reshape(T, -1)
        h = h + lin(l, "attn_output", *quantise(f"blk.{l}.attn_output", rms(o, model.norm[l, "attn_sub_norm"])))
        q8 = quantise(f"blk.{l}.ffn_gate_up", rms(h, model.norm[l, "ffn_norm"]))
        y = np.maximum(lin(l, "ffn_gate", *q8), 0) ** 2 * lin(l, "ffn_up", *q8)
        h = h + lin(l, "ffn_down", *quantise(f"blk.{l}.ffn_down", rms(y, model.norm[l, "ffn_sub_norm"])))
    put("logits", rms(h, model.output_norm) @ model.head.T.astype(f), "f32")
    folder = Path(folder)
    (folder / "trace.bin").write_bytes(blob)
    (folder / "trace.json").write_text(json.dumps({"tokens": [int(t) for t in tokens], "entries": entries}))


def check_comparison(model):
    quiet = lambda *_: None
    for seed in range(2, 6):
        tokens = np.random.default_rng(seed).integers(0, len(model.embd), 50).tolist()
        with tempfile.TemporaryDirectory() as d:
            trace_f32(model, tokens, d)
            t = Trace(d)
            passed, z, first_flip = compare_forced(model, t)
            assert passed
            assert compare_free(t.arrays["logits"], model.forward(tokens, kv=exact_cache), first_flip)
    with tempfile.TemporaryDirectory() as d:
        trace_f32(model, tokens, d)
        t = Trace(d)
        passed, z, _ = compare_forced(model, t, quiet)
        assert passed
        for name, change in (("blk.0.attn_qkv.q", 2), ("blk.1.ffn_down.q", 1), ("blk.1.attn_output.amax", 0.01), ("logits", 0.1)):
            t = Trace(d)
            a = t.arrays[name] = t.arrays[name].copy()
            at = np.unravel_index(a.size // 3, a.shape)
            a[at] = a[at] + change if a[at] < 100 else a[at] - change
            assert not compare_forced(model, t, quiet)[0], f"a wrong {name} passed"
            if name == "logits":
                assert relative(a, z).max() > 1e-5


def check_causal(model):
    """Logits of a prefix are those of the whole."""
    tokens = list(range(3, 20))
    a, b = model.forward(tokens), model.forward(tokens[:9])
    assert np.abs(a[:9] - b).max() < 1e-9


def check_torch(path, model):
    try:
        import torch
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo-model"))
        from evaluate import load
    except ImportError as e:
        print("training graph: skipped,", e)
        return
    net, clean = load(path), 0
    for seed in range(3, 9):
        tokens = np.random.default_rng(seed).integers(0, len(model.embd), 50).tolist()
        with torch.no_grad():
            e = relative(net(torch.tensor([tokens]))[0].double().numpy(), model.forward(tokens, kv=exact_cache))
        # one value rounded the other way moves its own and later positions by up to about 1e-2; positions before it agree
        far = np.argmax(e > 1e-5) if (e > 1e-5).any() else len(e)
        clean += far
        assert e.max() < 0.1
    print(f"training graph: {clean} of {6 * 50} positions before the first other rounding, all of them within 1e-5")
    assert clean >= 100


if __name__ == "__main__":
    check_i2s()
    m = Model(sys.argv[1])
    check_causal(m)
    check_comparison(m)
    check_torch(sys.argv[1], m)
    print("all checks passed")
