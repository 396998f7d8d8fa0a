"""Trains the demo model on two CPU cores. See README.md for the command.

Documents are written as they are needed (no epoch is ever repeated), sorted by length inside a pool and cut into batches of nearly equal
token counts. The cosine schedule follows the number of steps; `--minutes` re-plans it from the measured speed so that the run ends in time.
"""

import argparse
import json
import math
import os
import random
import threading
import queue
import time
from dataclasses import asdict

import torch
import torch.nn.functional as F

import corpus
from model import BitLinear, Config, Model


def batches(tok, seed, tokens, progress):
    """Yields (ids, targets, weights) forever; all [B, T]."""
    rng = random.Random(seed)
    while True:
        docs = corpus.encode_documents(tok, [corpus.document(rng, progress()) for _ in range(1500)], rng)
        docs = [d for d in docs if len(d[0]) <= 513]
        docs.sort(key=lambda d: len(d[0]))
        out, i = [], 0
        while i < len(docs):
            j, longest = i, 0
            while j < len(docs) and (j - i + 1) * (len(docs[j][0]) - 1) <= tokens:
                longest = len(docs[j][0]) - 1
                j += 1
            if j == len(docs) and i:
                break                                   # the rest of a pool is a small batch: dropped
            out.append((docs[i:j], longest))
            i = j
        rng.shuffle(out)
        for group, T in out:
            x = torch.zeros(len(group), T, dtype=torch.long)
            y, w = torch.zeros_like(x), torch.zeros(len(group), T)
            for r, (ids, ws) in enumerate(group):
                n = len(ids) - 1
                x[r, :n] = torch.tensor(ids[:-1])
                y[r, :n] = torch.tensor(ids[1:])
                w[r, :n] = torch.tensor(ws[1:])
            yield x, y, w


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", default="run")
    ap.add_argument("--minutes", type=float, default=60, help="the schedule is planned to end after this time")
    ap.add_argument("--steps", type=int, default=0, help="a fixed number of steps instead of --minutes")
    ap.add_argument("--tokens", type=int, default=2048, help="tokens in a batch")
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--decay", type=float, default=0.05)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--float", type=float, default=0.0, help="part of the schedule without quantisation")
    ap.add_argument("--resume", action="store_true")
    for k, v in asdict(Config()).items():
        ap.add_argument("--" + k, type=type(v), default=v)
    ap.add_argument("--bench", type=int, default=0)
    ap.add_argument("--compile", action="store_true")
    a = ap.parse_args()

    torch.manual_seed(a.seed)
    torch.set_num_threads(2)
    os.makedirs(a.out, exist_ok=True)
    cfg = Config(**{k: getattr(a, k) for k in asdict(Config())})
    tpath = os.path.join(a.out, "tokenizer.json")
    if os.path.exists(tpath):
        from tokenizers import Tokenizer
        tok = Tokenizer.from_file(tpath)
    else:
        tok = corpus.train_tokenizer(tpath, cfg.vocab, a.seed)
    assert tok.get_vocab_size() == cfg.vocab, tok.get_vocab_size()

    model = Model(cfg)
    decay = [p for n, p in model.named_parameters() if p.ndim == 2]
    plain = [p for n, p in model.named_parameters() if p.ndim == 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": a.decay}, {"params": plain, "weight_decay": 0.0}],
                            lr=a.lr, betas=(0.9, 0.98), eps=1e-9, fused=True)
    print(sum(p.numel() for p in model.parameters()), "parameters", cfg, flush=True)
    step, spent, seen = 0, 0.0, 0
    ck = os.path.join(a.out, "checkpoint.pt")
    if a.resume and os.path.exists(ck):
        c = torch.load(ck, weights_only=False)
        model.load_state_dict(c["model"]); opt.load_state_dict(c["opt"])
        step, spent, seen = c["step"], c["spent"], c["seen"]
        print("resumed at step", step, flush=True)

    def save():
        tmp = ck + ".tmp"
        torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "config": asdict(cfg), "step": step, "spent": spent,
                    "seen": seen, "loss": average, "mix": BitLinear.mix}, tmp)
        os.replace(tmp, ck)

    progress = lambda: (step / a.steps if a.steps else spent / (a.minutes * 60))
    feed = queue.Queue(maxsize=64)

    def produce():
        for b in batches(tok, a.seed * 1000 + step, a.tokens, progress):
            feed.put(b)
    threading.Thread(target=produce, daemon=True).start()

    hidden = torch.compile(model.hidden, dynamic=True) if a.compile else model.hidden
    average, answers, begun, saved, log = None, None, time.time(), time.time(), open(os.path.join(a.out, "log.jsonl"), "a")
    last = time.time()
    while progress() < 1.0 and not (a.bench and step >= a.bench):
        p = progress()
        warm = min(1.0, (step + 1) / 100)
        lr = a.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * p)))
        for g in opt.param_groups:
            g["lr"] = lr
        # late in the schedule the weights should stop flipping for no reason: no decay in the second half
        opt.param_groups[0]["weight_decay"] = a.decay if p < 0.5 else 0.0
        BitLinear.mix = 0.0 if p < a.float else 1.0
        x, y, w = feed.get()
        h = hidden(x)
        keep = (w.view(-1) > 0).nonzero().squeeze(1)
        logits = model.head(h[keep])
        ww, yy = w.view(-1)[keep], y.view(-1)[keep]
        each = F.cross_entropy(logits, yy, reduction="none")
        loss = (each * ww).sum() / ww.sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        with torch.no_grad():
            m = ww == corpus.W_ANSWER
            ans = each[m].mean().item() if m.any() else (answers or 0.0)
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        answers = ans if answers is None else 0.98 * answers + 0.02 * ans
        step += 1
        seen += x.numel()
        now = time.time()
        spent += min(now - last, 30.0)
        last = now
        if step % 50 == 0:
            r = dict(step=step, loss=round(average, 4), answers=round(answers, 4), norm=round(norm.item(), 3), lr=round(lr, 6), mix=round(BitLinear.mix, 3),
                     minutes=round(spent / 60, 2), tokens_per_s=round(seen / spent), progress=round(p, 4))
            print(json.dumps(r), flush=True)
            log.write(json.dumps(r) + "\n"); log.flush()
        if now - saved > 120:
            save()
            saved = now
    save()
    print("done", step, "steps", round(spent / 60, 1), "minutes", seen, "tokens", flush=True)


if __name__ == "__main__":
    main()
