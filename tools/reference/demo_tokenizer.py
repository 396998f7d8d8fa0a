"""The Hugging Face tokenizer of a GGUF file with `tokenizer.ggml.model` = gpt2 and the llama-bpe splitter."""

LLAMA_BPE = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def tokenizer_of(gguf):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    m = gguf.meta
    if m["tokenizer.ggml.model"] != "gpt2" or m.get("tokenizer.ggml.pre", "llama-bpe") != "llama-bpe":
        raise ValueError("only gpt2 vocabularies with the llama-bpe splitter are supported")
    tokens, types = m["tokenizer.ggml.tokens"], m["tokenizer.ggml.token_type"]
    plain = {t: i for i, t in enumerate(tokens) if types[i] != 3}
    merges = [tuple(x.split(" ")) for x in m["tokenizer.ggml.merges"]]
    tok = Tokenizer(models.BPE(plain, merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA_BPE), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for i, t in enumerate(tokens) if types[i] == 3])
    for i, t in enumerate(tokens):
        assert tok.token_to_id(t) == i, (i, t)
    return tok


def plain_tokenizer_of(gguf):
    """The same without the control tokens: their names are ordinary text."""
    from tokenizers import Tokenizer, decoders, models
    full = tokenizer_of(gguf)
    m = gguf.meta
    plain = {t: i for i, t in enumerate(m["tokenizer.ggml.tokens"]) if m["tokenizer.ggml.token_type"][i] != 3}
    tok = Tokenizer(models.BPE(plain, [tuple(x.split(" ")) for x in m["tokenizer.ggml.merges"]]))
    tok.pre_tokenizer, tok.decoder = full.pre_tokenizer, decoders.ByteLevel()
    return tok
