"""The texts of the golden files: written by hand, and mixed from pieces by a fixed seed."""

import random

PROSE = """The quick brown fox jumps over the lazy dog.
It's what they're saying: we'd've known, I'll go, you've been, he's, she'd, I'm. DON'T! WE'RE, I'LL, YOU'VE, HE'S, I'D, I'M
don\u2019t won\u2019t it\u2019s \u2018quoted\u2019 \u201cdouble\u201d \u2013 dash \u2014 long\u2026
'tis 'twas rock 'n' roll, the '90s, O'Neill's boss' ''s 'S 't'T 'RE'Re 'lL'Ll 'x 'sx 'llama it'\u017f \u017fs \u212a's
A sentence with trailing space 
 A sentence with leading space
  two  inner   spaces    four     five
Once upon a time, in a land far away, there lived a ternary model whose weights were -1, 0 and +1.
antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis Donaudampfschifffahrtsgesellschaft
e-mail: someone@example.org, https://example.org/path?query=1&other=two#part (see [1], p. 42\u201347).
10 + 20 = 30; 1,000,000.50 \u20ac; 3.14159265358979; 0x1F; 1e-9; 50%; #7; $5.99; \u00a35; \u00bd \u00b2 \u00b3 \u2167 \u0663\u0664 \u0e53 1st 2nd 3\u00d74
0 1 12 123 1234 12345 123456 1234567 12345678 123456789 1234567890 00000000000000000000
a1b22c333d4444e55555 v1.2.3-rc4 2026-11-22T11:32:24Z 192.168.0.1 a\u00b2+b\u00b2=c\u00b2
HELLO WORLD HelloWorld helloWorld hello_world hello-world HELLO_WORLD hElLo
!!!??? ... ,,, ;;; ::: --- === *** ~~~ ``` ''' \"\"\" ((( ))) [[[ ]]] {{{ }}} <<< >>> ||| \\\\\\ /// @@@ ### $$$ %%% ^^^ &&& ___ +++
====================================================================================================
--------------------------------------------------------------------------------
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
the the the the the thethethethethethethethethethethethethethethethethethethethethethethethethe
""".split("\n")

LANGUAGES = """\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e
\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002\u30ab\u30bf\u30ab\u30ca\u3068\u6f22\u5b57\u3001\u3072\u3089\u304c\u306a\u3002\u30c6\u30b9\u30c8\u2026\u300c\u5f15\u7528\u300d
\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4. \uc548\ub155\ud558\uc138\uc694 \uc138\uacc4! \u3131\u3134\u3137
\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0421\u044a\u0435\u0448\u044c \u0435\u0449\u0451 \u044d\u0442\u0438\u0445 \u043c\u044f\u0433\u043a\u0438\u0445 \u0444\u0440\u0430\u043d\u0446\u0443\u0437\u0441\u043a\u0438\u0445 \u0431\u0443\u043b\u043e\u043a. \u043d\u0435\u0449\u043e \u043d\u0430 \u0411\u044a\u043b\u0433\u0430\u0440\u0441\u043a\u0438
\u0397 \u03b3\u03bb\u03ce\u03c3\u03c3\u03b1 \u03b5\u03af\u03bd\u03b1\u03b9 \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ae. \u0391\u0392\u0393 \u03b1\u03b2\u03b3
\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0647\u0630\u0627 \u0646\u0635 \u0639\u0631\u0628\u064a. \u0661\u0662\u0663\u0664
\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd, \u05d6\u05d4 \u05d8\u05e7\u05e1\u05d8.
\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e\u0964 \u092f\u0939 \u0939\u093f\u0928\u094d\u0926\u0940 \u0939\u0948\u0964 \u0967\u0968\u0969
\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u0e19\u0e35\u0e48\u0e04\u0e37\u0e2d\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22
\u1780\u17b6\u1793\u17cb\u178f\u17c2\u1796\u17b7\u179f\u17c1\u179f\u17a2\u17b6\u1785 \u0d2e\u0d32\u0d2f\u0d3e\u0d33\u0d02 \u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8 \u0570\u0561\u0575\u0565\u0580\u0565\u0576
na\u00efve caf\u00e9 \u00fcber Stra\u00dfe \u00c5ngstr\u00f6m \u0141\u00f3d\u017a \u010de\u0161tina \u0130stanbul \u0131s\u0131 \u00f1and\u00fa \u00e6\u00f8\u00e5 \u00c6\u00d8\u00c5 \ufb01n
Ti\u1ebfng Vi\u1ec7t c\u00f3 d\u1ea5u \u2014 fran\u00e7ais: \u00ab \u00e0 bient\u00f4t \u00bb, espa\u00f1ol: \u00bfqu\u00e9? \u00a1s\u00ed!
\U0001d54f \U0001d400\U0001d401 \U00020000\U0002a6df \ua000\ua001 \u2c00 \u16a0\u16a2\u16a6 \u1362 \u2116 \u2122 \u00ae \u00a9 \u2190\u2191\u2192\u2193 \u221e \u2211 \u222b \u2260 \u2264 \u00b0C \u00b5m \u2126
\U0001f600\U0001f603\U0001f604 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea\U0001f1ef\U0001f1f5 \u2764\ufe0f \U0001f44d\U0001f3fd \U0001f999\U0001f999 \U0001f636\u200d\U0001f32b\ufe0f \u2705 \U0001f680 (normal)
""".split("\n")

CODE = ['fn main() {\n    let x: Vec<u32> = (0..10).map(|i| i * 2).collect();\n    println!("{x:?}");\n}\n',
        'def f(a, b=None, *args, **kw):\n\t"""Doc."""\n\tif a is not None and b != 3:\n\t\treturn [i ** 2 for i in range(100)]\n\n\n',
        '#include <stdio.h>\r\nint main(void)\r\n{\r\n\tprintf("%d\\n", 0xdeadbeef);\r\n\treturn 0;\r\n}\r\n',
        'const f = async ({a, ...rest}) => { await fetch(`/api/${a}?x=${rest?.y ?? 1}`); };  // comment\n/* block\n * comment */',
        '{"name": "value", "list": [1, 2.5, -3e10, true, null], "nested": {"a\\u00e9": "\\n"}}',
        '<!DOCTYPE html><html><body class="a b"><p>Hi &amp; bye</p><br/><s>old</s></body></html>\n<!-- note -->',
        'SELECT * FROM t WHERE id IN (1,2,3) AND name LIKE \'%x%\' ORDER BY 1 DESC;',
        'for i in $(seq 1 10); do echo "$i" | sed -e \'s/a/b/g\' >> out.txt 2>&1; done\n',
        '\\begin{equation}\n  E = mc^2 \\quad \\forall x \\in \\mathbb{R}\n\\end{equation}',
        '| a | b |\n|---|---|\n| 1 | **2** |\n\n- item\n  - sub `code`\n\n```rust\nlet y = 1;\n```\n> quote\n# Heading\n',
        'class Foo<T extends Bar> implements Baz { private final Map<String, List<T>> m = new HashMap<>(); }',
        '0123456789abcdef0123456789ABCDEF 550e8400-e29b-41d4-a716-446655440000 YWJjZA== AKIA/+x']

SPACES = [" ", "  ", "   ", "    ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", "\r", "\r\n", "\r\n\r\n", " \n", "\n ", " \n ", "  \n  ", "\t\n\t",
          "\u00a0", "\u3000", "\u2003", "\u2028", "\u2029", "\u0085", "\u000b", "\u000c", "\u200b", "\ufeff", " \u00a0 ", "\u3000\u3000", " " * 17, "\n" * 9]

PIECES = SPACES * 3 + ["a", "b", "Z", "the", " the", "The", "ing", "tion", " of", "'s", "'S", "'ll", "'RE", "'", "\u2019s", "\"", ".", ",", "...", "?!", "!", "(", ")",
          "-", "--", "_", "/", "\\", "=", "==", "`", "|", "~", "^", "$", "+", "<", ">", "<|", "|>", "@", "#", "&", "*", "%", "1", "12", "123", "1234", "99999", "3.14",
          "\u00bd", "\u2167", "\u0663", "\u00e9", "e\u0301", "\u00df", "\u0416", "\u03b1", "\u4e2d", "\u6587", "\u65e5\u672c", "\u306e", "\u30ab", "\ud55c", "\u0627", "\u05d0", "\u0928\u093f",
          "\u0e01", "\U0001f600", "\U0001f44d\U0001f3fd", "\u200d", "\ufe0f", "\u0301", "\U00020000", "\ue000", "\x00", "\x04", "\x07", "\x1b", "\x7f", "\u00ad", "\u2581", "\u0120", "\u010a",
          "<0x0A>", "<0xFF>", "hello", "world", "model", "int", "return", "fn", "()", "{}", "};", "=>", "://", "www", ".com", "[]", "\u20ac", "\u2014", "\u2026", "\u3002", "\uff01"]


def texts(specials):
    """Every text once, those with the names of special tokens among them."""
    lines = PROSE + LANGUAGES
    out = [""] + lines + CODE + ["\n".join(PROSE[:4]), "\n".join(LANGUAGES[:6])]
    out += [w for line in lines for w in line.split(" ")[:12]]
    out += SPACES + [s + "x" for s in SPACES] + ["x" + s for s in SPACES] + ["x" + s + "y" for s in SPACES] + ["." + s + "1" for s in SPACES]
    out += ["7" * n for n in range(1, 21)] + [" " + "7" * n + "a" for n in range(1, 8)]
    out += [" " * n + "x" for n in (*range(1, 34), 40)] + ["x" + "\n" * n for n in range(1, 20)] + ["\t" * n + ";" for n in range(1, 12)]
    rng = random.Random(20261122)
    out += ["".join(rng.choice(PIECES) for _ in range(rng.randint(2, 9))) for _ in range(1400)]
    for name in specials:
        out += [name, f"a{name}b", f" {name} ", f"{name}{name}\n", f"{name[:-1]}", f"x {name[1:]}"]
    out += ["".join(rng.choice(PIECES + list(specials) * 8) for _ in range(rng.randint(2, 7))) for _ in range(200)] if specials else []
    return list(dict.fromkeys(out))
