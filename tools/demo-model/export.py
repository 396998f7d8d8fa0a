"""Writes a checkpoint as an I2_S GGUF v3 file, plus a small JSON file that describes it.

    python export.py run/checkpoint.pt run/tokenizer.json ../../runtime/assets/demo.gguf

Ternary tensors are flattened row-major and cut into blocks of 128 weights, 32 bytes each: byte j holds weight j in bits 7-6, 32 + j in
bits 5-4, 64 + j in bits 3-2, 96 + j in bits 1-0, as code t + 1. The f32 scale of the tensor follows at offset M*K/4; M*K/4 + 32 bytes
in all. The embedding is F16, norms are F32.
"""

import argparse
import hashlib
import json
import struct

import numpy as np
import torch

U32, I32, F32, BOOL, STR, ARR = 4, 5, 6, 7, 8, 9
T_F32, T_F16, T_I2S = 0, 1, 36
ALIGN = 32              # the default of the format, which engines that rewrite files assume

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}")


def ternarise(w):
    """f32 weights [M, K] -> (t int8 [M, K], scale f32): absmean, round half to even."""
    s = np.float32(max(np.abs(w.astype(np.float64)).mean(), 1e-5))
    t = np.clip(np.rint(w.astype(np.float32) / s), -1, 1).astype(np.int8)
    return t, s


def pack_i2s(t, scale):
    m, k = t.shape
    assert k % 128 == 0, f"K = {k} is not a multiple of 128"
    code = (t.reshape(-1, 4, 32) + 1).astype(np.uint8)                 # [block, plane, byte]
    packed = code[:, 0] << 6 | code[:, 1] << 4 | code[:, 2] << 2 | code[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


def string(s):
    b = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(b)) + b


def value(kind, v):
    if kind == STR:
        return string(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def key(name, kind, v, item=None):
    head = string(name) + struct.pack("<I", kind)
    if kind != ARR:
        return head + value(kind, v)
    return head + struct.pack("<IQ", item, len(v)) + b"".join(value(item, x) for x in v)


def vocabulary(tokenizer_json):
    """tokens by id, their types (1 normal, 3 control) and merges, from a tokenizer.json."""
    j = json.load(open(tokenizer_json, encoding="utf-8"))
    tokens = {i: t for t, i in j["model"]["vocab"].items()}
    special = {x["id"]: x["content"] for x in j["added_tokens"]}
    tokens.update(special)
    n = len(tokens)
    assert sorted(tokens) == list(range(n))
    merges = [m if isinstance(m, str) else " ".join(m) for m in j["model"]["merges"]]
    return [tokens[i] for i in range(n)], [3 if i in special else 1 for i in range(n)], merges


def export(checkpoint, tokenizer_json, out):
    ck = torch.load(checkpoint, weights_only=False, map_location="cpu")
    c, sd = ck["config"], {k: v.float().numpy() for k, v in ck["model"].items()}
    tokens, types, merges = vocabulary(tokenizer_json)
    assert len(tokens) == c["vocab"]
    ident = {t: i for i, t in enumerate(tokens)}
    bos, eos, eot = (ident[t] for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
    a = "bitnet-b1.58."
    meta = [
        key("general.architecture", STR, "bitnet-b1.58"),
        key("general.name", STR, "trilut-demo"),
        key("general.description", STR, "A tiny BitNet b1.58 model that tells short stories and answers questions about them; "
                                        "trained from scratch on a text grammar with tools/demo-model."),
        key("general.license", STR, "MIT OR Apache-2.0"),
        key("general.file_type", U32, 40),
        key("general.alignment", U32, ALIGN),
        key("general.quantization_version", U32, 2),
        key(a + "block_count", U32, c["layers"]),
        key(a + "embedding_length", U32, c["d"]),
        key(a + "feed_forward_length", U32, c["ffn"]),
        key(a + "context_length", U32, c["context"]),
        key(a + "attention.head_count", U32, c["heads"]),
        key(a + "attention.head_count_kv", U32, c["kv_heads"]),
        key(a + "attention.layer_norm_rms_epsilon", F32, c["eps"]),
        key(a + "rope.dimension_count", U32, c["d"] // c["heads"]),
        key(a + "rope.freq_base", F32, c["theta"]),
        key(a + "vocab_size", U32, c["vocab"]),
        key("tokenizer.ggml.model", STR, "gpt2"),
        key("tokenizer.ggml.pre", STR, "llama-bpe"),
        key("tokenizer.ggml.tokens", ARR, tokens, STR),
        key("tokenizer.ggml.token_type", ARR, types, I32),
        key("tokenizer.ggml.merges", ARR, merges, STR),
        key("tokenizer.ggml.bos_token_id", U32, bos),
        key("tokenizer.ggml.eos_token_id", U32, eos),
        key("tokenizer.ggml.eot_token_id", U32, eot),
        key("tokenizer.ggml.padding_token_id", U32, eos),
        key("tokenizer.ggml.add_bos_token", BOOL, True),
        key("tokenizer.chat_template", STR, CHAT_TEMPLATE),
    ]

    tensors = []                                                       # (name, dims with ne0 = K first, type, bytes)

    def f16(name):
        w = sd[name]
        tensors.append((name, w.shape[::-1], T_F16, w.astype("<f2").tobytes()))

    def f32(name):
        tensors.append((name, sd[name].shape[::-1], T_F32, sd[name].astype("<f4").tobytes()))

    def ternary(name):
        t, s = ternarise(sd[name])
        tensors.append((name, t.shape[::-1], T_I2S, pack_i2s(t, s)))

    f16("token_embd.weight")
    for i in range(c["layers"]):
        for n in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_sub_norm", "attn_output", "ffn_norm", "ffn_gate", "ffn_up",
                  "ffn_sub_norm", "ffn_down"):
            name = f"blk.{i}.{n}.weight"
            (f32 if n.endswith("norm") else ternary)(name)
    f32("output_norm.weight")

    infos, offset = [], 0
    for name, dims, kind, data in tensors:
        infos.append(string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, offset))
        offset += (len(data) + ALIGN - 1) // ALIGN * ALIGN
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta)) + b"".join(meta) + b"".join(infos)
    blob = bytearray(head + bytes(-len(head) % ALIGN))
    for _, _, _, data in tensors:
        blob += data + bytes(-len(data) % ALIGN)
    assert len(blob) <= 4 << 20, len(blob)
    open(out, "wb").write(blob)
    info = {"file": "demo.gguf", "bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest(), "parameters": int(sum(v.size for v in sd.values())),
            "config": c, "vocabulary": len(tokens), "bos": bos, "eos": eos, "eot": eot,
            "training": {"steps": ck["step"], "tokens": ck["seen"], "minutes": round(ck["spent"] / 60, 1), "loss": round(ck["loss"], 4)},
            "try": ["Hello", "Tell me a story about a fox.", "Who was the story about?", "What is 7 + 8?", "What is the opposite of hot?"]}
    json.dump(info, open(out.replace(".gguf", ".json"), "w"), indent=1)
    print(out, len(blob), "bytes", info["training"])


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("checkpoint")
    ap.add_argument("tokenizer")
    ap.add_argument("out")
    x = ap.parse_args()
    export(x.checkpoint, x.tokenizer, x.out)
