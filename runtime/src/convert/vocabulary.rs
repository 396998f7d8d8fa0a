//! The tokenizer of a checkpoint, as a GGUF file has it.

use super::ConvertError;
use super::checkpoint::{Checkpoint, read_small};
use super::pre_tokenizer;
use super::sentence_piece;
use crate::chat::ChatTemplate;
use crate::gguf::GgufWriter;
use serde_json::Value;
use std::collections::HashMap;

/// The numbers of token types in a GGUF file, which are those of SentencePiece too.
pub(super) mod token_type {
    pub(in super::super) const NORMAL: i32 = 1;
    pub(in super::super) const UNKNOWN: i32 = 2;
    pub(in super::super) const CONTROL: i32 = 3;
    pub(in super::super) const USER_DEFINED: i32 = 4;
    pub(in super::super) const UNUSED: i32 = 5;
    pub(in super::super) const BYTE: i32 = 6;
}

/// What a tokenizer calls the token that ends a turn, which files may not name.
const TURN_ENDS: &[&str] = &["<|eot_id|>", "<end_of_turn>", "<|im_end|>"];

/// Normalizers that there is no need for or that what a file says of its tokenizer stands for. (NFC changes
/// no text that is composed already, as nearly all is.)
const NORMALIZERS: &[&str] = &["Sequence", "Prepend", "Replace", "NFC"];

/// A vocabulary and its rules.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) types: Vec<i32>,
    /// Byte-level BPE has merges and a pre-tokenizer, SentencePiece scores.
    pub(super) rules: Rules,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    template: Option<String>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// How texts become tokens.
#[derive(Debug)]
pub(super) enum Rules {
    /// Byte-level BPE.
    Bytes { merges: Vec<String>, pre: String },
    /// SentencePiece.
    Pieces { scores: Vec<f32>, space_prefix: bool },
}

impl Default for Rules {
    fn default() -> Self {
        Self::Pieces { scores: Vec::new(), space_prefix: true }
    }
}

impl Vocabulary {
    /// Reads the tokenizer of a checkpoint for a model of `size` tokens. `pre` names the pre-tokenizer
    /// where the files do not tell.
    pub(super) fn read(
        checkpoint: &Checkpoint,
        size: usize,
        pre: Option<&str>,
    ) -> Result<Self, ConvertError> {
        let json = checkpoint.json("tokenizer.json")?;
        let byte_level = json.as_ref().is_some_and(is_byte_level);
        let pieces = match byte_level {
            true => None,
            false => read_small(&checkpoint.dir().join("tokenizer.model"))?,
        };
        let mut this = match (&json, pieces) {
            (_, Some(model)) => sentence_piece::read(&model)?,
            (Some(json), None) => from_json(json, byte_level, pre)?,
            (None, None) => {
                let what = "tokenizer (tokenizer.json or tokenizer.model)".to_owned();
                return Err(ConvertError::Missing { dir: checkpoint.dir().to_owned(), what });
            }
        };
        let config = checkpoint.json("tokenizer_config.json")?.unwrap_or_default();
        if let Some(json) = &json {
            this.add_tokens(&json["added_tokens"])?;
        } else {
            this.add_configured(&config["added_tokens_decoder"])?;
        }
        this.fill(size)?;
        this.name_tokens(checkpoint, &config, json.as_ref())?;
        this.template = template(checkpoint, &config, &mut this.notes)?;
        Ok(this)
    }

    /// Adds or replaces a token.
    fn set(&mut self, id: u64, text: &str, kind: i32) -> Result<(), ConvertError> {
        // Far above any vocabulary: a wrong id must not ask for all memory.
        let id = usize::try_from(id).ok().filter(|&id| id < 1 << 24).ok_or_else(|| {
            ConvertError::Vocabulary(format!("the token `{text}` has the id {id}"))
        })?;
        if id >= self.tokens.len() {
            let first = self.tokens.len();
            self.tokens.extend((first..=id).map(|id| format!("[PAD{id}]")));
            self.types.resize(id + 1, token_type::UNUSED);
        }
        self.tokens[id] = text.to_owned();
        self.types[id] = kind;
        Ok(())
    }

    /// The `added_tokens` of a tokenizer.json.
    fn add_tokens(&mut self, added: &Value) -> Result<(), ConvertError> {
        for token in added.as_array().into_iter().flatten() {
            let (Some(id), Some(text)) = (token["id"].as_u64(), token["content"].as_str()) else {
                return Err(ConvertError::Vocabulary(
                    "an added token has no id or no text".to_owned(),
                ));
            };
            self.set(id, text, added_type(text, token["special"].as_bool()))?;
        }
        Ok(())
    }

    /// The `added_tokens_decoder` of a tokenizer_config.json.
    fn add_configured(&mut self, added: &Value) -> Result<(), ConvertError> {
        for (id, token) in added.as_object().into_iter().flatten() {
            let (Ok(id), Some(text)) = (id.parse(), token["content"].as_str()) else {
                return Err(ConvertError::Vocabulary(
                    "an added token has no id or no text".to_owned(),
                ));
            };
            self.set(id, text, added_type(text, token["special"].as_bool()))?;
        }
        Ok(())
    }

    /// Fills the vocabulary up to the model's size.
    fn fill(&mut self, size: usize) -> Result<(), ConvertError> {
        if self.tokens.len() > size {
            let rule = format!("it has {} tokens, the model {size}", self.tokens.len());
            return Err(ConvertError::Vocabulary(rule));
        }
        self.tokens.extend((self.tokens.len()..size).map(|id| format!("[PAD{id}]")));
        self.types.resize(size, token_type::UNUSED);
        if let Rules::Pieces { scores, .. } = &mut self.rules {
            scores.resize(size, -10_000.0);
        }
        Ok(())
    }

    /// Finds the tokens that have a part of their own.
    fn name_tokens(
        &mut self,
        checkpoint: &Checkpoint,
        config: &Value,
        json: Option<&Value>,
    ) -> Result<(), ConvertError> {
        let ids: HashMap<&str, u32> =
            (0..).zip(&self.tokens).map(|(id, text)| (text.as_str(), id)).collect();
        let model = checkpoint.json("config.json")?.unwrap_or_default();
        let generation = checkpoint.json("generation_config.json")?.unwrap_or_default();
        let size = self.tokens.len() as u64;
        let find = |key: &str| -> Option<u32> {
            let named = &config[format!("{key}_token")];
            let text = named.as_str().or(named["content"].as_str());
            let numbered = |value: &Value| {
                let id = value.as_u64().or(value[0].as_u64())?;
                (id < size).then_some(id as u32)
            };
            let key = format!("{key}_token_id");
            let by_text = text.and_then(|text| ids.get(text).copied());
            by_text.or_else(|| numbered(&model[&key])).or_else(|| numbered(&generation[&key]))
        };
        let (bos, mut eos) = (find("bos"), find("eos"));
        let (unknown, padding) = (find("unk"), find("pad"));
        for (key, found) in [("bos_token_id", bos), ("eos_token_id", eos)] {
            let beyond = [&model, &generation].map(|file| file[key].as_u64()).into_iter().flatten();
            if let (None, Some(id)) = (found, beyond.max()) {
                let rule = format!("`{key}` is {id}, the model has {size} tokens");
                return Err(ConvertError::Vocabulary(rule));
            }
        }
        let (mut add_bos, mut add_eos) =
            (config["add_bos_token"].as_bool(), config["add_eos_token"].as_bool());
        // What the tokenizer itself puts around a text.
        if let Some((first, last)) = json.and_then(|json| surroundings(&json["post_processor"])) {
            let id = |text: &Option<String>| text.as_ref().and_then(|text| ids.get(text.as_str()));
            add_bos = Some(first.is_some() && id(&first).copied() == bos);
            if let Some(&last) = id(&last) {
                // Some tokenizers end texts with another token than answers.
                (eos, add_eos) = (Some(last), Some(true));
            }
        }
        let turn = TURN_ENDS.iter().find_map(|text| ids.get(text).copied());
        self.eot = turn.filter(|_| turn != eos);
        (self.bos, self.eos, self.unknown, self.padding) = (bos, eos, unknown, padding);
        (self.add_bos, self.add_eos) = (add_bos, add_eos);
        Ok(())
    }

    /// Sets the tokenizer's keys of a file.
    pub(super) fn write(&self, writer: &mut GgufWriter) {
        match &self.rules {
            Rules::Bytes { pre, .. } => {
                writer.str("tokenizer.ggml.model", "gpt2").str("tokenizer.ggml.pre", pre);
            }
            Rules::Pieces { .. } => {
                writer.str("tokenizer.ggml.model", "llama").str("tokenizer.ggml.pre", "default");
            }
        }
        writer.strings("tokenizer.ggml.tokens", &self.tokens);
        match &self.rules {
            Rules::Bytes { merges, .. } => {
                writer.i32s("tokenizer.ggml.token_type", &self.types);
                writer.strings("tokenizer.ggml.merges", merges);
            }
            Rules::Pieces { scores, space_prefix } => {
                writer.f32s("tokenizer.ggml.scores", scores);
                writer.i32s("tokenizer.ggml.token_type", &self.types);
                writer.bool("tokenizer.ggml.add_space_prefix", *space_prefix);
            }
        }
        let ids = [
            ("bos", self.bos),
            ("eos", self.eos),
            ("eot", self.eot),
            ("unknown", self.unknown),
            ("padding", self.padding),
        ];
        for (name, id) in ids {
            if let Some(id) = id {
                writer.u32(&format!("tokenizer.ggml.{name}_token_id"), id);
            }
        }
        for (name, flag) in [("add_bos_token", self.add_bos), ("add_eos_token", self.add_eos)] {
            if let Some(flag) = flag {
                writer.bool(&format!("tokenizer.ggml.{name}"), flag);
            }
        }
        if let Some(template) = &self.template {
            writer.str("tokenizer.chat_template", template);
        }
    }
}

fn added_type(text: &str, special: Option<bool>) -> i32 {
    match special {
        _ if text == "<unk>" => token_type::UNKNOWN,
        Some(true) => token_type::CONTROL,
        _ => token_type::USER_DEFINED,
    }
}

/// Whether the tokens of a tokenizer.json are written in byte-level characters.
fn is_byte_level(json: &Value) -> bool {
    let mut kinds = Vec::new();
    kinds_of(&json["pre_tokenizer"], &mut kinds);
    kinds_of(&json["decoder"], &mut kinds);
    kinds.contains(&"ByteLevel")
}

/// The types of a part of a tokenizer.json and of the parts in it.
fn kinds_of<'a>(part: &'a Value, kinds: &mut Vec<&'a str>) {
    kinds.extend(part["type"].as_str());
    for list in ["pretokenizers", "decoders", "normalizers", "processors"] {
        part[list].as_array().into_iter().flatten().for_each(|part| kinds_of(part, kinds));
    }
}

/// The tokens of a tokenizer.json.
fn from_json(
    json: &Value,
    byte_level: bool,
    pre: Option<&str>,
) -> Result<Vocabulary, ConvertError> {
    let model = &json["model"];
    let bad = |what: &str| ConvertError::Vocabulary(what.to_owned());
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") {
        let rule = format!("its model is {}, only BPE is supported", model["type"]);
        return Err(ConvertError::Vocabulary(rule));
    }
    let vocab =
        model["vocab"].as_object().ok_or_else(|| bad("tokenizer.json has no vocabulary"))?;
    let mut this = Vocabulary::default();
    for (text, id) in vocab {
        let id = id
            .as_u64()
            .ok_or_else(|| ConvertError::Vocabulary(format!("`{text}` has the id {id}")))?;
        let kind = match text.as_str() {
            "<unk>" if !byte_level => token_type::UNKNOWN,
            text if !byte_level && is_byte(text) => token_type::BYTE,
            _ => token_type::NORMAL,
        };
        let place = id as usize;
        if this.types.get(place).is_some_and(|&kind| kind != token_type::UNUSED) {
            let rule = format!("`{}` and `{text}` have the id {id}", this.tokens[place]);
            return Err(ConvertError::Vocabulary(rule));
        }
        this.set(id, text, kind)?;
    }
    let mut merges = Vec::new();
    for merge in model["merges"].as_array().into_iter().flatten() {
        merges.push(match (merge.as_str(), merge[0].as_str(), merge[1].as_str()) {
            (Some(text), ..) => text.to_owned(),
            (None, Some(left), Some(right)) => format!("{left} {right}"),
            _ => return Err(bad("tokenizer.json has a merge that is no pair")),
        });
    }
    if merges.is_empty() && !vocab.is_empty() {
        return Err(bad("tokenizer.json has no merges"));
    }
    let mut kinds = Vec::new();
    kinds_of(&json["normalizer"], &mut kinds);
    if let Some(kind) = kinds.iter().find(|kind| !NORMALIZERS.contains(kind)) {
        let rule = format!("its normalizer {kind} is not supported");
        return Err(ConvertError::Vocabulary(rule));
    }
    this.rules = if byte_level {
        let pre = match pre {
            Some(pre) => pre,
            None => pre_tokenizer::name(&json["pre_tokenizer"], vocab).ok_or_else(|| {
                bad("its pre-tokenizer, the rule that cuts texts into words, is not one that is known")
            })?,
        };
        Rules::Bytes { merges, pre: pre.to_owned() }
    } else {
        Rules::Pieces { scores: scores(&this.tokens, &merges), space_prefix: space_prefix(json) }
    };
    Ok(this)
}

/// Whether a token is one byte, such as `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let hex = text.strip_prefix("<0x").and_then(|text| text.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok())
}

/// Scores that put merges in their order: less the place of the first merge that makes a token.
fn scores(tokens: &[String], merges: &[String]) -> Vec<f32> {
    let mut first: HashMap<String, f32> = HashMap::new();
    for (rank, merge) in merges.iter().enumerate() {
        // The parts of a merge hold no space: it is written as another character.
        first.entry(merge.replacen(' ', "", 1)).or_insert(-(rank as f32));
    }
    tokens.iter().map(|token| first.get(token).copied().unwrap_or(-1e6)).collect()
}

/// Whether a tokenizer.json puts a space before texts.
fn space_prefix(json: &Value) -> bool {
    fn any(part: &Value) -> bool {
        let here = match part["type"].as_str() {
            Some("Prepend") => true,
            Some("Metaspace") => match part["prepend_scheme"].as_str() {
                Some(scheme) => scheme != "never",
                None => part["add_prefix_space"].as_bool().unwrap_or(true),
            },
            _ => false,
        };
        let lists = ["pretokenizers", "normalizers"].map(|list| part[list].as_array());
        here || lists.into_iter().flatten().flatten().any(any)
    }
    any(&json["normalizer"]) || any(&json["pre_tokenizer"])
}

/// The tokens that a post-processor puts before and after a text; `None` when it does not say.
fn surroundings(processor: &Value) -> Option<(Option<String>, Option<String>)> {
    if let Some(parts) = processor["processors"].as_array() {
        return parts.iter().find_map(surroundings);
    }
    let single = processor["single"].as_array()?;
    let token = |part: Option<&Value>| Some(part?["SpecialToken"]["id"].as_str()?.to_owned());
    Some((token(single.first()), token(single.last())))
}

/// The chat template, of several the one without a purpose of its own. A model can be used without one, so
/// what is wrong with it is only noted.
fn template(
    checkpoint: &Checkpoint,
    config: &Value,
    notes: &mut Vec<String>,
) -> Result<Option<String>, ConvertError> {
    const OWN_FILE: &str = "chat_template.jinja";
    if let Some(bytes) = read_small(&checkpoint.dir().join(OWN_FILE))? {
        let bad = |_| ConvertError::Vocabulary(format!("{OWN_FILE} is not UTF-8"));
        let text = String::from_utf8(bytes).map_err(bad)?;
        notes.extend(template_note(&text, &format!("the chat template in {OWN_FILE}")));
        return Ok(Some(text));
    }
    let json = checkpoint.json("chat_template.json")?.unwrap_or_default();
    for (file, value) in [("tokenizer_config.json", config), ("chat_template.json", &json)] {
        let value = &value["chat_template"];
        let named = value.as_array().into_iter().flatten();
        let default = || {
            let mut defaults = named.filter(|entry| entry["name"] == "default");
            defaults.find_map(|entry| entry["template"].as_str())
        };
        if let Some(text) = value.as_str().or_else(default) {
            notes.extend(template_note(text, &format!("the chat template in {file}")));
            return Ok(Some(text.to_owned()));
        }
        if !value.is_null() {
            let found: String = value.to_string().chars().take(80).collect();
            notes.push(format!(
                "`chat_template` in {file} is {found}: neither a text nor a list with one named default; the \
                 file gets no chat template"
            ));
        }
    }
    Ok(None)
}

/// What is to be said of a chat template: that it is none.
pub(super) fn template_note(text: &str, which: &str) -> Option<String> {
    let error = ChatTemplate::new(text, "", "").err()?;
    let cause = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
    Some(format!("{which} is copied, but it is not valid, so that there can be no chats: {cause}"))
}
