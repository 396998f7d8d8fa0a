"""Writes tokenizer test data: strings and their ids under a model's tokenizer, as Hugging Face `tokenizers` encodes them.

    python golden.py MODEL -o vectors/tokenizer_golden.jsonl

One JSON object a line: {"text", "ids"}. The names of control tokens inside a text are ordinary text, unless the line says "special": true.
"""

import argparse
import json
import random

from demo_tokenizer import plain_tokenizer_of, tokenizer_of
from gguf import Gguf

FIXED = """Hello
hello world
Hello, world!
 leading space
trailing space 
  two leading spaces
two  inner   spaces    four
The quick brown fox jumps over the lazy dog.
Once upon a time there was a little girl named Mia.
What is 7 + 8?
7 + 8 = 15.
User: Tell me a story about a fox.
Assistant: 
I'm you're he's she'll we've they'd it's can't won't
I'M YOU'RE HE'S SHE'LL WE'VE THEY'D IT'S CAN'T
'tis 'twas rock 'n' roll
don't'd've
O'Neill's
0
1
12
123
1234
12345
123456
1234567
3.14159
1,000,000
-42
1e-5
0x7fff
192.168.0.1
2026-11-22
12:34:56
$9.99
50%
a1b2c3
x86_64
abc123def
fn main() { println!("hi"); }
for (int i = 0; i < 10; ++i) { a[i] += b[i] * c; }
if x == 1 and y != 2:
    return [z for z in range(10)]
let v: Vec<u8> = vec![0; 16];
<div class="a">text</div>
{"key": [1, 2.5, null, true]}
SELECT * FROM t WHERE a >= 3;
/usr/bin/env python3
C:\\Windows\\System32
a_b-c.d/e\\f|g
!!!
...
?!?!
--
---
===>
#include <stdio.h>
@user #tag
user@example.org
(parentheses) [brackets] {braces} <angles>
"quoted" 'single' `code`
~!@#$%^&*()_+-={}[]|:;<>,.?/
naïve café résumé
Ünïcödé
Straße
ÀÉÎÕÜ àéîõü
Łódź
Привет, мир!
Καλημέρα κόσμε
שלום עולם
مرحبا بالعالم
नमस्ते दुनिया
สวัสดีชาวโลก
你好，世界！
我喜欢红色的球。
今天天气很好
こんにちは世界
カタカナとひらがな
안녕하세요 세계
你好hello世界world
中文123数字
１２３４５
٣٤٥٦
Ⅷ ½ ² ³
x²+y²=z²
😀
😀😃😄
👍🏽
👨‍👩‍👧‍👦
🇫🇷🇩🇪
❤️
I ❤️ Rust 🦀
→ ← ↑ ↓
∀x ∈ ℝ: x² ≥ 0
“curly” ‘quotes’ – dash — em…
€100 £50 ¥1000
zero​width
no break
soft­hyphen
�
CamelCaseWord
snake_case_word
SCREAMING_CASE
kebab-case-word
iPhone
McDonald
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
AAAAAAAAAAAAAAAA
abababababababab
e
é
é
ǅ
ﬁ
<|begin_of_text|>
<|end_of_text|>
<|eot_id|>
<|begin_of_text|>hello<|eot_id|>
<|start_header_id|>user<|end_header_id|>
<|
|>
<|eot_id
text <|eot_id|> text
<s></s>
[INST] hi [/INST]""".split("\n")

ESCAPED = ["", " ", "  ", "   ", "    ", "        ", " " * 17, "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\r", "\t", "\t\t", "\t \t", " \n", "\n ", " \n ", "  \n  ",
           "a\nb", "a\n\nb", "a \n b", "a\n  b", "a  \nb", "a\r\nb", "a\tb", "a\t\tb", "a \tb", "a\t b", "a   b", "a    ", "   a", "\ta", "\na", "a\n", "a\n\n", "a \n\n ",
           "line one\nline two\n\nline four\n", "def f(x):\n    return x\n\n\ndef g(y):\n\treturn y\n", "!\n", "!\n\n", "! \n", "?!\r\n", ".\n\nA", "x = 1;\n\ty = 2;\n", "1\n2\n3",
           "12 34  56   78", "\u00a0", "\u00a0\u00a0a", "\u2003a", "a\u2028b", "a\u0085b", "\u3000全角", "\ufeffbom", "\u200b", "\x00", "\x01\x02", "\x7f", "a\x00b", "\x1b[0m",
           "'S", "'s", "''s", "'sa", " 's", "'ſ", "'LL", "'Ve", "'re're", "a's b't c're d've e'm f'll g'd", "don’t", "12's", " '", "e\u0301", "\u0301", "ก็", "ำ", "각", "\U0001f1fa\U0001f1f8", "\U0010ffff",
           "\U0001d54f", "𝟘𝟙𝟚", "𠀀𠀁", "a" * 200, " a" * 50, "1" * 50, "ab " * 40, "é" * 30, "😀" * 10, "\n" * 10, " \n" * 8, ".," * 20, "-" * 64, "=" * 33]

SPECIAL = ["<|begin_of_text|>", "<|eot_id|>", "<|begin_of_text|>User: Hello<|eot_id|>Assistant: ", "a<|eot_id|>b", "a <|eot_id|> b", "<|eot_id|><|eot_id|>",
           "<|begin_of_text|>User: What is 7 + 8?<|eot_id|>Assistant: 7 + 8 = 15.<|eot_id|>User: Thank you!<|eot_id|>Assistant: ", "<|begin_of_text|>Once upon a time<|end_of_text|>",
           " <|end_of_text|>\n", "<|eot_id|", "<|eot_id|>>", "<<|eot_id|>", "<|EOT_ID|>", "\n<|eot_id|>\n\n", "你好<|eot_id|>😀"]


def generated(rng):
    """Random mixtures of the above: borders between classes are where splitters go wrong."""
    parts = ["fox", "Mia", " the", "Story", "é", "你", "好", "😀", "1", "23", "4567", " ", "  ", "\n", "\t", "\r\n", ".", ",", "!", "?", "'s", "'", "\"", "-", "_", "(", ")",
             "'LL", "ß", "Я", "\u00a0", "\u0301", " \n", "<|", "|>", "=", "+", "/", "A", "b", " C", "½", "ก", "\u3000", "…", "’t"]
    return "".join(rng.choice(parts) for _ in range(rng.randint(2, 14)))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model")
    ap.add_argument("-o", "--out", required=True)
    a = ap.parse_args()
    g, rng = Gguf(a.model), random.Random(5)
    full, plain = tokenizer_of(g), plain_tokenizer_of(g)
    texts = list(dict.fromkeys(FIXED + ESCAPED + [generated(rng) for _ in range(160)]))
    n = 0
    with open(a.out, "w", encoding="utf-8", newline="\n") as f:
        for special, tok, some in ((False, plain, texts), (True, full, SPECIAL)):
            for t in some:
                ids = tok.encode(t, add_special_tokens=False).ids
                assert tok.decode(ids, skip_special_tokens=False) == t, t
                f.write(json.dumps({"text": t, "ids": ids, **({"special": True} if special else {})}, ensure_ascii=True) + "\n")
                n += 1
    print(a.out, n, "strings")


if __name__ == "__main__":
    main()
