"""Scores an exported demo model: greedy answers to held-out questions, accuracy per kind.

    python evaluate.py ../../runtime/assets/demo.gguf run/tokenizer.json --write questions.jsonl
    python evaluate.py ../../runtime/assets/demo.gguf run/tokenizer.json --questions questions.jsonl

The weights come from the GGUF file itself (ternary codes and scales, f16 embedding), and the forward pass uses f32 products.
"""

import argparse
import collections
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch

import corpus
from model import BitLinear, Config, Model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))
from gguf import Gguf  # noqa: E402


class ExactBit(torch.nn.Module):
    """A linear layer that holds t and the scale as they stand in the file."""

    def __init__(self, t, s):
        super().__init__()
        self.t, self.s = torch.from_numpy(t.astype(np.float32)), torch.tensor(s)

    def forward(self, x):
        amax = x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        q = (x * (127.0 / amax)).round().clamp(-127, 127)
        return (q @ self.t.t()) * (self.s * (amax / 127.0))


def load(path):
    g = Gguf(path)
    m = g.meta
    a = "bitnet-b1.58."
    cfg = Config(vocab=m[a + "vocab_size"], d=m[a + "embedding_length"], layers=m[a + "block_count"], heads=m[a + "attention.head_count"],
                 kv_heads=m[a + "attention.head_count_kv"], ffn=m[a + "feed_forward_length"], context=m[a + "context_length"],
                 theta=m[a + "rope.freq_base"], eps=m[a + "attention.layer_norm_rms_epsilon"])
    BitLinear.fast = False
    model = Model(cfg)
    with torch.no_grad():
        for name, p in list(model.named_parameters()):
            if g.kind(name) == 36:
                t, s = g.ternary(name)
                parent = model.get_submodule(name.rsplit(".", 2)[0])
                setattr(parent, name.rsplit(".", 2)[1], ExactBit(t, s))
            else:
                p.copy_(torch.from_numpy(np.asarray(g.float(name), dtype=np.float32)))
    return model.eval()


@torch.no_grad()
def generate(model, tok, prompts, stop, limit=40, batch=32):
    """Greedy answers. `prompts`: token id lists. Rows are padded on the right, which a causal model cannot see."""
    order, out = sorted(range(len(prompts)), key=lambda i: len(prompts[i])), [None] * len(prompts)
    for k in range(0, len(order), batch):
        part = order[k:k + batch]
        rows = [list(prompts[i]) for i in part]
        open_rows = list(range(len(part)))
        for _ in range(limit):
            T = max(len(rows[r]) for r in open_rows)
            ids = torch.tensor([rows[r] + [0] * (T - len(rows[r])) for r in open_rows])
            h = model.hidden(ids).view(len(open_rows), T, -1)
            last = torch.stack([h[j, len(rows[r]) - 1] for j, r in enumerate(open_rows)])
            for r, t in zip(list(open_rows), model.head(last).argmax(-1).tolist()):
                if t in stop:
                    open_rows.remove(r)
                else:
                    rows[r].append(t)
            if not open_rows:
                break
        for r, i in enumerate(part):
            out[i] = tok.decode(rows[r][len(prompts[i]):])
    return out


def chat(turns, question):
    return corpus.BOS + "".join(f"User: {u}{corpus.EOT}Assistant: {v}{corpus.EOT}" for u, v in turns) + f"User: {question}{corpus.EOT}Assistant: "


def questions(seed=2026, stories=60):
    """Questions about stories that no training document contains, and facts."""
    rng, out, n = random.Random(seed), [], 0
    while n < stories:
        req, s = corpus.story_request(rng, test=True)
        n += 1
        told = n % 3 != 0
        turns, first = ([(req, s.text)], "") if told else ([], s.text + " ")
        qs = s.questions()
        rng.shuffle(qs)
        for kind, wordings, ans in qs[:4]:
            w = rng.choice(wordings)
            out.append({"prompt": chat(turns, first + w), "answer": ans, "kind": "story-" + kind})
            if told:
                turns = turns + [(w, ans)]
            # a story in the user's own message is asked about once per conversation, each time from the start
    for _ in range(40):
        q, ans = corpus.sum_fact(rng)
        out.append({"prompt": chat([], q), "answer": ans, "kind": "sum"})
    for w in rng.sample(list(corpus.OPPOSITE), 30):
        q, ans = corpus.opposite_question(rng, w)
        out.append({"prompt": chat([], q), "answer": ans, "kind": "opposite"})
    for t, c in rng.sample(corpus.THING_COLOUR, 20):
        q, ans = corpus.thing_colour_question(rng, t, c)
        out.append({"prompt": chat([], q), "answer": ans, "kind": "thing-colour"})
    for _ in range(10):
        name = rng.choice(corpus.GIRLS + corpus.BOYS)
        out.append({"prompt": chat([(f"My name is {name}.", f"Hello, {name}! It is nice to meet you.")], "What is my name?"),
                    "answer": f"Your name is {name}.", "kind": "name"})
    seen, unique = set(), []
    for x in out:
        if x["prompt"] not in seen:
            seen.add(x["prompt"])
            unique.append(x)
    return unique


def encode(tok, prompt):
    return tok.encode(prompt, add_special_tokens=False).ids


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("model")
    ap.add_argument("tokenizer")
    ap.add_argument("--questions")
    ap.add_argument("--write")
    ap.add_argument("--show", type=int, default=8, help="how many wrong answers to print")
    a = ap.parse_args()
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(a.tokenizer)
    torch.set_num_threads(2)
    model = load(a.model)
    qs = [json.loads(x) for x in open(a.questions, encoding="utf-8")] if a.questions else questions()
    if a.write:
        with open(a.write, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(x, ensure_ascii=False) + "\n" for x in qs)
    stop = [tok.token_to_id(corpus.EOT), tok.token_to_id(corpus.EOS)]
    got = generate(model, tok, [encode(tok, x["prompt"]) for x in qs], stop)
    right, total, shown = collections.Counter(), collections.Counter(), 0
    for x, g in zip(qs, got):
        for k in (x["kind"], "stories" if x["kind"].startswith("story") else "facts", "all"):
            total[k] += 1
            right[k] += g.strip() == x["answer"]
        if g.strip() != x["answer"] and shown < a.show:
            shown += 1
            print("wrong:", x["kind"], "|", x["prompt"][-60:].replace("\n", " "), "|", repr(g), "| expected", x["answer"])
    for k in sorted(total):
        print(f"{k:20s} {right[k]:4d} / {total[k]:4d}  {100 * right[k] / total[k]:.1f} %")
    for p in ("Hello", "Who are you?", "Tell me a story about a fox.", "What is the capital of France?", "Write a story about a golden kite."):
        print(">", p, "\n ", generate(model, tok, [encode(tok, chat([], p))], stop, limit=160)[0])


if __name__ == "__main__":
    main()
