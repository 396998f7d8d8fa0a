"""An independent forward pass of ternary models, in float64: BitNet b1.58 2B-4T and the other families of FAMILIES.

    python reference.py MODEL --tokens 1,2,3 -o logits.npy        free running: logits of all positions, float64 [T, vocab]
    python reference.py MODEL --trace DIR                         compares a runtime's trace, forced and free running

Only the activation quantisation follows the integer contract (per token: amax floored at 1e-5, q = round half to even of x * 127 / amax,
clamped to +-127); everything else is float64. It shares no code with the runtime and is written to be read from top to bottom.

Letters in shape comments: T tokens, D embedding length, H query heads, G key/value heads, E head size, F feed-forward length, V vocabulary.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from gguf import Gguf

FLOOR = 1e-5            # smallest amax of a token
NEAR = 1e-3             # how near to a rounding boundary an unrounded value must be for the other q to be accepted
FORCED = 1e-5           # logits in forced mode, relative to the largest |logit| of the row
INTEGERS = 10           # with keys and values cached as integers, attention rounds once more: limits of so many times as much,
INTEGERS_AMAX = 20      # and for the largest input of a layer
FREE = 1e-4             # logits in free running mode, for FREE_SHARE of the rows
FREE_SHARE = 0.9


def relu2(x):
    return np.maximum(x, 0.0) ** 2


def silu(x):
    return x / (1.0 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x ** 3)))


# architecture: activation; rope turns pairs (2i, 2i+1) instead of (i, i + E/2); norms before o and down; norms of each q and k head;
# norms of what is added to the stream; embedding times sqrt(D). Norms inside linear layers are where the file has them.
FAMILIES = {
    "bitnet-b1.58": (relu2, False, True, False, False, False),
    "bitnet-25": (relu2, False, True, False, False, False),
    "bitnet": (silu, False, True, False, False, False),
    "llama": (silu, True, False, False, False, False),
    "qwen3": (silu, False, False, True, False, False),
    "gemma3": (gelu, False, False, True, True, True),
}


def f16_cache(name, x):
    """Keys and values are stored in f16: that is part of the runtime's contract, not an error of it."""
    return x.astype(np.float16).astype(np.float64)


def q16_step(x):
    """What an integer of a row stands for: the largest is at most 32767, the row as a vector at most 46000 long"""
    return np.maximum(np.abs(x).max(-1, keepdims=True) / 32767.0, np.sqrt((x * x).sum(-1, keepdims=True)) / 46000.0)


def q16_cache(name, x):
    """Keys and values are stored in sixteen bits, with a scale for each row of a head: the runtime's usual cache."""
    step = np.maximum(q16_step(x), 1e-22)
    return np.rint(x / step) * step


def exact_cache(name, x):
    """Keys and values as they are, for comparison with engines that keep them unrounded."""
    return x


class Model:
    def __init__(self, path):
        g = self.gguf = Gguf(path)
        arch = g.meta["general.architecture"]
        if arch not in FAMILIES:
            raise ValueError(f"architecture {arch} is not supported")
        self.act, self.pairs, self.sub_norms, self.head_norms, self.post_norms, scaled = FAMILIES[arch]
        self.norm_in = "blk.0.attn_q_norm_in.weight" in g.tensors
        key = lambda k, *default: g.meta.get(f"{arch}.{k}", *default)
        self.layers, self.D, self.F = key("block_count"), key("embedding_length"), key("feed_forward_length")
        self.H = key("attention.head_count")
        self.G = key("attention.head_count_kv", self.H)
        self.E = key("attention.key_length", key("rope.dimension_count", self.D // self.H))
        self.turned = key("rope.dimension_count", self.E)                           # of a head, the rest is left alone
        self.factor = np.sqrt(self.D) if scaled else 1.0
        self.eps, self.theta = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base", 10000.0)
        self.window = key("attention.sliding_window", 0)                            # positions that a token sees in local layers
        pattern = key("attention.sliding_window_pattern", 6)                        # Gemma 3's period, of which the last layer is global
        local = pattern if isinstance(pattern, list) else [l % pattern < pattern - 1 for l in range(self.layers)]
        self.local = [bool(x) and self.window > 0 for x in local]
        self.local_theta = key("rope.freq_base_swa", 10000.0)                       # Gemma 3's
        self.embd = g.float("token_embd.weight")                                    # [V, D]
        self.head = g.float("output.weight") if "output.weight" in g.tensors else self.embd
        self.output_norm = g.float("output_norm.weight")                            # [D]
        self.norm, self.linear = {}, {}
        for l in range(self.layers):
            names = ["attn_norm", "ffn_norm"]
            names += ["attn_sub_norm", "ffn_sub_norm"] * self.sub_norms
            names += ["attn_q_norm", "attn_k_norm"] * self.head_norms
            names += ["post_attention_norm", "post_ffw_norm"] * self.post_norms
            names += [n + "_norm_in" for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")] * self.norm_in
            for n in names:
                self.norm[l, n] = g.float(f"blk.{l}.{n}.weight")
            for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
                t, s = g.ternary(f"blk.{l}.{n}.weight")                             # t [M, K] in -1, 0, 1
                self.linear[l, n] = (t.astype(np.float64), float(s))

    def rms(self, x, w):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * w

    def rope(self, x, theta):
        """x [T, heads, E]: of the first `turned` elements, i turns with i + turned/2, or 2i with 2i + 1"""
        T, n = x.shape[0], self.turned
        freq = theta ** (-2.0 * np.arange(n // 2) / n)                         # [n/2]
        angle = np.arange(T)[:, None, None] * freq                                  # [T, 1, n/2]
        c, s = np.cos(angle), np.sin(angle)
        out = x.copy()
        first, second = (np.s_[..., 0:n:2], np.s_[..., 1:n:2]) if self.pairs else (np.s_[..., :n // 2], np.s_[..., n // 2:n])
        out[first], out[second] = x[first] * c - x[second] * s, x[second] * c + x[first] * s
        return out

    def forward(self, tokens, hook=None, kv=None):
        """Logits [T, V]. `hook(name, q, unrounded, amax)` may return another q for a linear layer's input;
        `kv(name, x)` may return other stored keys or values; the cache holds f16 otherwise."""
        hook = hook or (lambda name, q, u, amax: q)
        kv = kv or f16_cache

        def quantise(name, x):
            """x [T, K] -> integers [T, K] as float64, amax [T, 1]"""
            amax = np.maximum(np.abs(x).max(-1, keepdims=True), FLOOR)
            u = x * (127.0 / amax)
            q = np.clip(np.rint(u), -127, 127)
            return hook(name, q, u, amax).astype(np.float64), amax

        def bitlinear(l, name, q, amax):
            t, s = self.linear[l, name]
            return (q @ t.T) * (s * (amax / 127.0))                                 # [T, M]; the product is exact

        def linears(l, x, together, *names):
            """The outputs of linear layers with one input x, which each norms for itself where the model does"""
            if self.norm_in:
                return [bitlinear(l, n, *quantise(f"blk.{l}.{n}", self.rms(x, self.norm[l, n + "_norm_in"]))) for n in names]
            q8, amax = quantise(f"blk.{l}.{together}", x)
            return [bitlinear(l, n, q8, amax) for n in names]

        def maybe(wanted, l, name, x):
            return self.rms(x, self.norm[l, name]) if wanted else x

        T, E = len(tokens), self.E
        h = self.embd[np.asarray(tokens)] * self.factor                             # [T, D]
        back = np.arange(T)[:, None] - np.arange(T)[None, :]                        # [T, T]: how far a query looks back
        for l in range(self.layers):
            theta, sees = (self.local_theta, self.window) if self.local[l] else (self.theta, T)
            mask = np.where((back >= 0) & (back < sees), 0.0, -np.inf)
            x = self.rms(h, self.norm[l, "attn_norm"])                              # [T, D]
            q, k, v = linears(l, x, "attn_qkv", "attn_q", "attn_k", "attn_v")
            q, k, v = q.reshape(T, self.H, E), k.reshape(T, self.G, E), v.reshape(T, self.G, E)
            q, k = maybe(self.head_norms, l, "attn_q_norm", q), maybe(self.head_norms, l, "attn_k_norm", k)
            q, k = self.rope(q, theta), kv(f"blk.{l}.k", self.rope(k, theta))
            v = kv(f"blk.{l}.v", v)
            out = np.empty((T, self.H, E))
            for head in range(self.H):
                g = head * self.G // self.H                                         # the key/value head this query head shares
                z = q[:, head] @ k[:, g].T / np.sqrt(E) + mask                    # [T, T]
                p = np.exp(z - z.max(-1, keepdims=True))
                out[:, head] = p / p.sum(-1, keepdims=True) @ v[:, g]
            x = maybe(self.sub_norms, l, "attn_sub_norm", out.reshape(T, self.H * E))
            o, = linears(l, x, "attn_output", "attn_output")
            h = h + maybe(self.post_norms, l, "post_attention_norm", o)

            x = self.rms(h, self.norm[l, "ffn_norm"])                               # [T, D]
            gate, up = linears(l, x, "ffn_gate_up", "ffn_gate", "ffn_up")           # [T, F]
            x = maybe(self.sub_norms, l, "ffn_sub_norm", self.act(gate) * up)
            d, = linears(l, x, "ffn_down", "ffn_down")
            h = h + maybe(self.post_norms, l, "post_ffw_norm", d)
        return self.rms(h, self.output_norm) @ self.head.T                          # [T, V]


class Trace:
    """trace.json + trace.bin: raw little-endian arrays, row-major."""

    def __init__(self, folder):
        folder = Path(folder)
        j = json.loads((folder / "trace.json").read_text())
        data = (folder / "trace.bin").read_bytes()
        self.tokens, self.arrays = j["tokens"], {}
        kinds = {"i8": "i1", "f32": "<f4", "f16": "<f2"}
        for e in j["entries"]:
            n = int(np.prod(e["shape"]))
            self.arrays[e["name"]] = np.frombuffer(data, kinds[e["dtype"]], n, e["offset"]).reshape(e["shape"])


class Forced:
    """A hook that continues from the runtime's q, after checking every one of them."""

    def __init__(self, trace, near=NEAR, cache=f16_cache):
        self.trace, self.near, self.cache = trace, near, cache
        self.values = self.flips = self.wrong = 0
        self.first_flip = len(trace.tokens)         # first position with a q, or a stored f16, that differs
        self.worst_amax, self.messages, self.used_kv = 0.0, [], 0

    def __call__(self, name, q, u, amax):
        theirs = self.trace.arrays[name + ".q"].astype(np.float64)
        if theirs.shape != q.shape:
            raise ValueError(f"{name}.q has shape {theirs.shape}, expected {q.shape}")
        differ = theirs != q
        # the two may differ by one, if the unrounded value lies within `near` of the half between them
        allowed = (np.abs(theirs - q) == 1) & (np.abs(u - (theirs + q) / 2) <= self.near)
        wrong = differ & ~allowed
        self.values += q.size
        self.flips += int(differ.sum())
        if differ.any():
            self.first_flip = min(self.first_flip, int(differ.any(-1).argmax()))
        self.wrong += int(wrong.sum())
        for t, i in np.argwhere(wrong)[:3]:
            if len(self.messages) < 20:
                self.messages.append(f"{name}.q[{t}, {i}] = {theirs[t, i]:.0f}, expected {q[t, i]:.0f} (unrounded {u[t, i]:.6f})")
        if name + ".amax" in self.trace.arrays:
            theirs_amax = self.trace.arrays[name + ".amax"].astype(np.float64).reshape(-1, 1)
            self.worst_amax = max(self.worst_amax, float((np.abs(theirs_amax - amax) / amax).max()))
        return theirs

    def kv(self, name, x):
        """Stored keys and values, if the trace has them: used when within the rounding of the cache of ours."""
        if name not in self.trace.arrays:
            return x
        a = self.trace.arrays[name]
        theirs = a.astype(np.float64).reshape(x.shape)
        if self.cache is q16_cache:
            rounding = q16_step(x) / 2.0
        else:
            rounding = np.abs(x) * (2.0 ** -11 if a.dtype == np.float16 else 0.0)
        bound = rounding + 1e-5 * np.abs(x).max() + 2.0 ** -25
        bad = np.abs(theirs - x) > bound
        self.wrong += int(bad.sum())
        if bad.any() and len(self.messages) < 20:
            self.messages.append(f"{name}: {int(bad.sum())} stored values differ by more than their rounding")
        if a.dtype == np.float16:
            differ = (theirs != f16_cache(name, x)).reshape(len(x), -1).any(-1)
            if differ.any():
                self.first_flip = min(self.first_flip, int(differ.argmax()))
        self.used_kv += 1
        return theirs


def relative(a, b):
    """largest difference of each row, relative to the largest |logit| of the row of b; [T]"""
    return np.abs(a - b).max(-1) / np.abs(b).max(-1)


def compare_forced(model, trace, log=print, cache=f16_cache):
    """(passed, the reference's logits under the runtime's q, the first position with a q that differs)"""
    more, more_amax = (INTEGERS, INTEGERS_AMAX) if cache is q16_cache else (1, 1)
    hook, limit = Forced(trace, NEAR * more, cache), FORCED * more
    z = model.forward(trace.tokens, hook, hook.kv)
    err = relative(trace.arrays["logits"].astype(np.float64), z)
    log(f"forced: {hook.values} quantised values, {hook.flips} on the other side of a boundary, {hook.wrong} wrong; amax within {hook.worst_amax:.2e}; "
        f"logits within {err.max():.2e} (limit {limit:.0e})" + (f"; {hook.used_kv} stored key/value arrays" if hook.used_kv else ""))
    for m in hook.messages:
        log("  " + m)
    return hook.wrong == 0 and bool((err <= limit).all()) and hook.worst_amax <= FORCED * more_amax, z, hook.first_flip


def compare_free(logits, z, first_flip=None, log=print):
    """logits of the runtime against free running ones z.

    A single value, of an activation or of the cache, on the other side of a boundary moves the logits of its own and all later positions by up to 1e-2. So where forced mode found
    one, at `first_flip`, the positions before it must all be within FREE; otherwise FREE_SHARE of all positions.
    """
    logits = logits.astype(np.float64)
    err = relative(logits, z)
    share = float((err <= FREE).mean())
    top = np.sort(z, -1)
    margin = top[:, -1] - top[:, -2]                                                # [T]
    decided = margin > 2 * np.abs(logits - z).max(-1)                               # each of the two may move by the error
    same = logits.argmax(-1) == z.argmax(-1)
    flipped = first_flip is not None and first_flip < len(z)
    log(f"free running: {share:.1%} of {len(z)} positions within {FREE:.0e} (median {np.median(err):.2e}, worst {err.max():.2e}); "
        f"same argmax in {int(same.sum())} / {len(z)}, in {int((same & decided).sum())} / {int(decided.sum())} where the margin decides"
        + (f"; a value rounded the other way at position {first_flip}" if flipped else ""))
    near = share >= FREE_SHARE or (flipped and bool((err[:first_flip] <= FREE).all()))
    return near and bool(same[decided].all())


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model")
    ap.add_argument("--tokens", help="token ids, separated by commas")
    ap.add_argument("--trace", help="folder with trace.json and trace.bin")
    ap.add_argument("-o", "--out", help="where to write the logits (.npy)")
    a = ap.parse_args()
    model = Model(a.model)
    if a.trace:
        trace = Trace(a.trace)
        forced, z, first_flip = compare_forced(model, trace)
        free = compare_free(trace.arrays["logits"], model.forward(trace.tokens), first_flip)
        print("forced:", "passed" if forced else "FAILED", "| free running:", "passed" if free else "FAILED")
        if a.out:
            np.save(a.out, z)
        sys.exit(0 if forced and free else 1)
    if not a.tokens:
        ap.error("--tokens or --trace is needed")
    tokens = [int(x) for x in a.tokens.split(",")]
    z = model.forward(tokens)
    if a.out:
        np.save(a.out, z)
    for t, row in zip(tokens, z):
        best = np.argsort(-row)[:3]
        print(t, "->", ", ".join(f"{i} {row[i]:.5f}" for i in best))


if __name__ == "__main__":
    main()
