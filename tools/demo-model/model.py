"""The demo model: BitNet b1.58 2B-4T in small, for quantisation-aware training.

RMS norms, sub-norms in front of the output and down projections, relu^2 gate, grouped-query attention, NEOX (half-split) rope, no
biases, output tied to the embedding. Every linear layer quantises its weights (absmean, ternary) and its inputs (absmax per token, int8);
gradients pass straight through both.
"""

import json
import math
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab: int = 1280
    d: int = 256
    layers: int = 5
    heads: int = 8
    kv_heads: int = 4
    ffn: int = 640
    context: int = 512
    theta: float = 10000.0
    eps: float = 1e-5

    @property
    def head_dim(self):
        return self.d // self.heads

    def dump(self):
        return json.dumps(asdict(self))


FLOOR = 1e-5


def weight_scale(w):
    """max(mean |W|, 1e-5), the mean in f64, the result in f32."""
    return w.detach().double().abs().mean().float().clamp(min=FLOOR)


class BitMatmul(torch.autograd.Function):
    """y = q(x) q(W)^T with straight-through gradients.

    int8 and ternary values are exact in bfloat16, so with `fast` the matrix products take bfloat16 operands; sums are taken in f32 and
    only the result is rounded to bfloat16. `mix` < 1 blends the unquantised weights and inputs in (only for warming up).
    """

    @staticmethod
    def forward(ctx, x, w, mix, fast):
        kind = torch.bfloat16 if fast else torch.float32
        s_w = weight_scale(w)
        amax = x.abs().amax(-1, keepdim=True).clamp(min=FLOOR)
        q = x * (127.0 / amax)
        t = w / s_w
        if mix >= 1.0:
            q = q.round_().clamp_(-127, 127)
            t = t.round_().clamp_(-1, 1)
        elif mix > 0.0:
            q = q.lerp(q.round().clamp_(-127, 127), mix)
            t = t.lerp(t.round().clamp_(-1, 1), mix)
        q, t = q.to(kind), t.to(kind)
        inv = amax / 127.0
        ctx.save_for_backward(q, t, s_w, inv)
        ctx.kind = kind
        return (q @ t.t()).float() * (s_w * inv)

    @staticmethod
    def backward(ctx, dy):
        q, t, s_w, inv = ctx.saved_tensors
        dx = (dy.to(ctx.kind) @ t).float() * s_w
        dw = ((dy * inv).to(ctx.kind).t() @ q).float()
        return dx, dw, None, None


class BitLinear(nn.Module):
    def __init__(self, k, m):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(m, k) * 0.5 / math.sqrt(k))
        self.k = k

    mix, fast = 1.0, True

    def forward(self, x):
        return BitMatmul.apply(x, self.weight, BitLinear.mix, BitLinear.fast)


class RMSNorm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope_table(cfg, n):
    """cos and sin, [n, head_dim]; the second half repeats the first (NEOX)."""
    half = cfg.head_dim // 2
    freq = cfg.theta ** (-torch.arange(half, dtype=torch.float64) * 2 / cfg.head_dim)
    angle = torch.arange(n, dtype=torch.float64)[:, None] * freq[None]
    angle = torch.cat([angle, angle], 1)
    return angle.cos().float(), angle.sin().float()


def rope(x, cos, sin):
    """x [B, H, T, head_dim]"""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        kv = c.kv_heads * c.head_dim
        self.c = c
        self.attn_norm = RMSNorm(c.d, c.eps)
        self.attn_q, self.attn_k, self.attn_v = BitLinear(c.d, c.d), BitLinear(c.d, kv), BitLinear(c.d, kv)
        self.attn_sub_norm = RMSNorm(c.d, c.eps)
        self.attn_output = BitLinear(c.d, c.d)
        self.ffn_norm = RMSNorm(c.d, c.eps)
        self.ffn_gate, self.ffn_up = BitLinear(c.d, c.ffn), BitLinear(c.d, c.ffn)
        self.ffn_sub_norm = RMSNorm(c.ffn, c.eps)
        self.ffn_down = BitLinear(c.ffn, c.d)

    def forward(self, h, B, T, cos, sin, mask):
        c = self.c                                                              # h [B*T, d]
        x = self.attn_norm(h)
        split = lambda y, n: y.view(B, T, n, c.head_dim).transpose(1, 2)        # [B, n, T, head_dim]
        q, k, v = split(self.attn_q(x), c.heads), split(self.attn_k(x), c.kv_heads), split(self.attn_v(x), c.kv_heads)
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        rep = c.heads // c.kv_heads
        k, v = k.repeat_interleave(rep, 1), v.repeat_interleave(rep, 1)
        z = torch.matmul(q * c.head_dim ** -0.5, k.transpose(-1, -2)) + mask    # [B, n, T, T]; on a CPU faster than the fused kernel
        y = torch.matmul(torch.softmax(z, -1), v)
        y = y.transpose(1, 2).reshape(B * T, c.d)
        h = h + self.attn_output(self.attn_sub_norm(y))
        x = self.ffn_norm(h)
        f = torch.relu(self.ffn_gate(x)).square() * self.ffn_up(x)
        return h + self.ffn_down(self.ffn_sub_norm(f))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Embedding(c.vocab, c.d)
        nn.init.normal_(self.token_embd.weight, std=0.05)
        self.blk = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.output_norm = RMSNorm(c.d, c.eps)
        cos, sin = rope_table(c, 1024)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(self, ids):
        """ids [B, T] -> [B*T, d], after the last norm"""
        B, T = ids.shape
        h = self.token_embd(ids).view(B * T, -1)
        mask = torch.full((T, T), float("-inf")).triu(1)
        for b in self.blk:
            h = b(h, B, T, self.cos[:T], self.sin[:T], mask)
        return self.output_norm(h)

    def head(self, x):
        w = self.token_embd.weight
        if BitLinear.fast:
            return (x.bfloat16() @ w.bfloat16().t()).float()
        return x @ w.t()

    def forward(self, ids):
        return self.head(self.hidden(ids)).view(*ids.shape, -1)
