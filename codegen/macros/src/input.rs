//! The grammar of `kernels!`: settings `name = value;`, each once, in any order.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use std::path::{Path, PathBuf};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, LitInt, LitStr, Token, bracketed};
use trilut_codegen::{Error, Set};
use trilut_presets::models::{self, ModelSpec};
use trilut_presets::{Format, Isa, MicroTile, Preset, Shape, nearest};

/// The settings.
const SETTINGS: &[&str] =
    &["formats", "isas", "shapes", "model", "tile", "preset", "kernels", "crate"];

/// What the macro was given.
pub(crate) struct Input {
    pub(crate) set: Set,
    /// The path of the kernels crate.
    pub(crate) library: TokenStream,
    /// Files that were read: the expansion changes with them.
    pub(crate) files: Vec<PathBuf>,
    /// Where each format was written.
    formats: Vec<(Format, Span)>,
    /// Where each tile was written.
    tiles: Vec<(MicroTile, Span)>,
    /// The layers of a model, which are those of `shapes` as well or come after them.
    model: Option<ModelSpec>,
    /// Where the preset was written.
    preset: Option<Span>,
    /// Everything.
    whole: Span,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut this = Self {
            set: Set::default(),
            library: quote!(::trilut_kernels),
            files: Vec::new(),
            formats: Vec::new(),
            tiles: Vec::new(),
            model: None,
            preset: None,
            whole: Span::call_site(),
        };
        let mut seen: Vec<String> = Vec::new();
        while !input.is_empty() {
            // `crate` is a keyword, the others are not.
            let name: Ident = input.call(syn::ext::IdentExt::parse_any)?;
            let text = name.to_string();
            if !SETTINGS.contains(&text.as_str()) {
                let near = nearest(&text, SETTINGS.iter().copied());
                let near = near.map_or(String::new(), |near| format!("; nearest: {near}"));
                let legal = SETTINGS[..SETTINGS.len() - 1].join(", ");
                let text = format!("unknown setting `{text}`; legal: {legal}{near}");
                return Err(syn::Error::new(name.span(), text));
            }
            if seen.contains(&text) {
                return Err(syn::Error::new(name.span(), format!("`{text}` is set twice")));
            }
            input.parse::<Token![=]>()?;
            this.setting(&text, input)?;
            input.parse::<Token![;]>()?;
            seen.push(text);
        }
        if let Some(model) = &this.model {
            this.set.model(model);
        }
        if this.set.is_empty() {
            let text = "no kernel is asked for: set `shapes`, `model` or `kernels`";
            return Err(syn::Error::new(this.whole, text));
        }
        Ok(this)
    }
}

impl Input {
    fn setting(&mut self, name: &str, input: ParseStream<'_>) -> syn::Result<()> {
        match name {
            "formats" => {
                for word in words(input)? {
                    let format = word.to_string().parse().map_err(at(word.span()))?;
                    self.set.format(format).map_err(at(word.span()))?;
                    self.formats.push((format, word.span()));
                }
            }
            "isas" => {
                for word in words(input)? {
                    let isa: Isa = word.to_string().parse().map_err(at(word.span()))?;
                    self.set.isa(isa).map_err(at(word.span()))?;
                }
            }
            "kernels" => {
                for word in words(input)? {
                    self.set.kernel(&word.to_string()).map_err(at(word.span()))?;
                }
            }
            "shapes" => self.shapes(input)?,
            "tile" => {
                let (tile, _) = self.tile(input)?;
                self.set.tile(tile);
            }
            "model" => {
                let name: LitStr = input.parse()?;
                self.model(&name)?;
            }
            "preset" => {
                let file: LitStr = input.parse()?;
                let text = self.read(&file)?;
                let preset = Preset::parse(&text, &file.value()).map_err(chain(file.span()))?;
                self.set.preset(preset);
                self.preset = Some(file.span());
            }
            _ => self.library = input.call(syn::Path::parse_mod_style)?.into_token_stream(),
        }
        Ok(())
    }

    /// A model by its name or by its file.
    fn model(&mut self, name: &LitStr) -> syn::Result<()> {
        let text = name.value();
        if let Some(known) = models::find(&text) {
            self.model = Some(known.clone());
            return Ok(());
        }
        if Path::new(&text).extension().is_none_or(|end| end != "toml") {
            let names = || models::all().iter().map(|model| model.name.as_str());
            let near = nearest(&text, names()).unwrap_or("bitnet-2b-4t");
            let legal: Vec<&str> = names().collect();
            let legal = legal.join(", ");
            let text = format!(
                "no model is named `{text}`; legal: a .toml file, {legal}; nearest: {near}"
            );
            return Err(syn::Error::new(name.span(), text));
        }
        self.model = Some(ModelSpec::from_toml(&self.read(name)?).map_err(chain(name.span()))?);
        Ok(())
    }

    /// `[M x K, M x K: rNuN, ...]`, at least one.
    fn shapes(&mut self, input: ParseStream<'_>) -> syn::Result<()> {
        let list;
        let bracket = bracketed!(list in input);
        if list.is_empty() {
            return Err(syn::Error::new(bracket.span.join(), "at least one shape is needed"));
        }
        while !list.is_empty() {
            let (shape, span) = shape(&list)?;
            self.set.shape(shape).map_err(at(span))?;
            if list.peek(Token![:]) {
                list.parse::<Token![:]>()?;
                let (tile, span) = self.tile(&list)?;
                self.set.tile_of(shape, tile).map_err(at(span))?;
            }
            if !list.is_empty() {
                list.parse::<Token![,]>()?;
            }
        }
        Ok(())
    }

    /// A tile, and where it is written.
    fn tile(&mut self, input: ParseStream<'_>) -> syn::Result<(MicroTile, Span)> {
        let word: TokenTree = input.parse()?;
        let tile = word.to_string().parse().map_err(at(word.span()))?;
        self.tiles.push((tile, word.span()));
        Ok((tile, word.span()))
    }

    /// The text of a file of the caller's crate.
    fn read(&mut self, file: &LitStr) -> syn::Result<String> {
        let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let path = Path::new(&root).join(file.value());
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let text = format!(
                "cannot read `{}` (paths begin at the directory of Cargo.toml): {error}",
                file.value()
            );
            syn::Error::new(file.span(), text)
        })?;
        self.files.push(path);
        Ok(text)
    }

    /// Where the first tile was written of which something holds.
    fn tile_with(&self, holds: impl Fn(&MicroTile) -> bool) -> Option<Span> {
        self.tiles.iter().find(|(tile, _)| holds(tile)).map(|&(_, span)| span)
    }

    /// An error of the whole set, at the token that it is about.
    pub(crate) fn place(&self, error: Error) -> syn::Error {
        let span = match &error {
            Error::Unread { format, .. } => {
                self.formats.iter().find(|(other, _)| other == format).map(|&(_, span)| span)
            }
            Error::Preset { .. } => self.preset,
            Error::Rows { given, .. } => self.tile_with(|tile| tile.rows == *given),
            Error::Unroll { given, .. } => self.tile_with(|tile| tile.unroll == *given),
            Error::Width { given, .. } => self.tile_with(|tile| tile.width == *given),
            _ => None,
        };
        syn::Error::new(span.unwrap_or(self.whole), error)
    }
}

/// Puts an error at a token.
fn at<E: std::fmt::Display>(span: Span) -> impl Fn(E) -> syn::Error {
    move |error| syn::Error::new(span, error)
}

/// The same with everything that caused it.
fn chain<E: std::error::Error>(span: Span) -> impl Fn(E) -> syn::Error {
    move |error| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text += &format!(": {}", error.to_string().trim_end());
            source = error.source();
        }
        syn::Error::new(span, text)
    }
}

/// `[word, word, ...]`, at least one.
fn words(input: ParseStream<'_>) -> syn::Result<Vec<Ident>> {
    let list;
    let bracket = bracketed!(list in input);
    let words = Punctuated::<Ident, Token![,]>::parse_terminated(&list)?;
    if words.is_empty() {
        return Err(syn::Error::new(bracket.span.join(), "at least one is needed"));
    }
    Ok(words.into_iter().collect())
}

/// `6912 x 2560` is three tokens, `6912x2560` is one literal with a suffix; both are welcome.
fn shape(input: ParseStream<'_>) -> syn::Result<(Shape, Span)> {
    let m: LitInt = input.parse()?;
    // Its text as written: `0x128` is a hexadecimal number to Rust, and an empty shape to us.
    let mut text = m.to_string();
    let mut span = m.span();
    if !text.contains('x') {
        let x: Ident = input.parse()?;
        text += &x.to_string();
        span = span.join(x.span()).unwrap_or(span);
        if x == "x" {
            let k: LitInt = input.parse()?;
            text += &k.to_string();
            span = span.join(k.span()).unwrap_or(span);
        }
    }
    let shape = text.parse().map_err(at(span))?;
    Ok((shape, span))
}
