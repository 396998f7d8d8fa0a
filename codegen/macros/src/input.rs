//! The grammar of `kernels!`: settings `name = value;`, each once.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::{Ident, LitInt, Token, bracketed};
use trilut_presets::{Format, Shape};

/// What the macro was given.
pub(crate) struct Input {
    pub(crate) format: Format,
    /// Shapes with the place where each was written.
    pub(crate) shapes: Vec<(Shape, Span)>,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut format, mut shapes) = (None, None);
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            let twice = match name.to_string().as_str() {
                "format" => format.replace(parse_format(input)?).is_some(),
                "shapes" => shapes.replace(parse_shapes(input)?).is_some(),
                other => {
                    let text = format!("unknown setting `{other}`; legal: format, shapes");
                    return Err(syn::Error::new(name.span(), text));
                }
            };
            if twice {
                return Err(syn::Error::new(name.span(), format!("`{name}` is set twice")));
            }
            input.parse::<Token![;]>()?;
        }
        let missing =
            |what| syn::Error::new(Span::call_site(), format!("`{what} = ...;` is missing"));
        Ok(Self {
            format: format.ok_or_else(|| missing("format"))?,
            shapes: shapes.ok_or_else(|| missing("shapes"))?,
        })
    }
}

fn parse_format(input: ParseStream<'_>) -> syn::Result<Format> {
    let word: Ident = input.parse()?;
    word.to_string().parse().map_err(|error| syn::Error::new(word.span(), error))
}

fn parse_shapes(input: ParseStream<'_>) -> syn::Result<Vec<(Shape, Span)>> {
    let list;
    let bracket = bracketed!(list in input);
    let mut shapes: Vec<(Shape, Span)> = Vec::new();
    while !list.is_empty() {
        let (shape, span) = parse_shape(&list)?;
        if shapes.iter().any(|(other, _)| *other == shape) {
            return Err(syn::Error::new(span, format!("shape {shape} is listed twice")));
        }
        shapes.push((shape, span));
        if !list.is_empty() {
            list.parse::<Token![,]>()?;
        }
    }
    if shapes.is_empty() {
        return Err(syn::Error::new(bracket.span.join(), "at least one shape is needed"));
    }
    Ok(shapes)
}

/// `6912 x 2560` is three tokens, `6912x2560` is one literal with a suffix; both are welcome.
fn parse_shape(input: ParseStream<'_>) -> syn::Result<(Shape, Span)> {
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
    let shape = text.parse().map_err(|error| syn::Error::new(span, error))?;
    Ok((shape, span))
}
