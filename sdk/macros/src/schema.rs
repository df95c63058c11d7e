//! A JSON Schema, as the pieces that `portcullis_sdk::schema` puts together.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Field, Fields, Variant};

use crate::attributes::{Serde, docs};

/// The pieces of a type's schema.
pub(crate) fn of(input: &DeriveInput) -> syn::Result<TokenStream> {
    let serde = Serde::of(&input.attrs)?;
    let description = docs(&input.attrs);
    match &input.data {
        Data::Struct(data) => whole(&data.fields, &serde, description.as_deref(), None),
        Data::Enum(data) => variants(data.variants.iter(), &serde, description.as_deref()),
        Data::Union(_) => Ok(TokenStream::new()),
    }
}

fn whole(
    fields: &Fields,
    serde: &Serde,
    description: Option<&str>,
    tag: Option<(&str, &str)>,
) -> syn::Result<TokenStream> {
    match fields {
        Fields::Named(named) => object(named.named.iter(), serde, description, tag),
        Fields::Unnamed(unnamed) if unnamed.unnamed.len() == 1 => {
            let inner = unnamed.unnamed.first().map(|field| &field.ty);
            Ok(described(description, &quote!(Piece::All(<#inner as ::portcullis_sdk::schema::Schema>::SCHEMA))))
        }
        Fields::Unnamed(_) | Fields::Unit => Err(syn::Error::new_spanned(
            fields,
            "settings are a struct with named fields, one that wraps a single value, or an enum",
        )),
    }
}

/// A description beside another type's schema.
fn described(description: Option<&str>, schema: &TokenStream) -> TokenStream {
    let piece = quote!(
        use ::portcullis_sdk::schema::Piece;
    );
    match description {
        None => quote!({ #piece #schema }),
        Some(description) => quote!({
            #piece
            Piece::All(&[
                Piece::Text("{\"description\":"),
                Piece::Quoted(#description),
                Piece::Text(",\"allOf\":["),
                #schema,
                Piece::Text("]}"),
            ])
        }),
    }
}

fn object<'a>(
    fields: impl Iterator<Item = &'a Field>,
    container: &Serde,
    description: Option<&str>,
    tag: Option<(&str, &str)>,
) -> syn::Result<TokenStream> {
    let (mut properties, mut required) = (Vec::new(), Vec::new());
    if let Some((tag, name)) = tag {
        properties.push(quote!(
            Piece::Quoted(#tag), Piece::Text(":{\"const\":"), Piece::Quoted(#name), Piece::Text("}"),
        ));
        required.push(quote!(Required { name: #tag, optional: false }));
    }
    for field in fields {
        let serde = Serde::of(&field.attrs)?;
        let Some(ident) = field.ident.as_ref().filter(|_| !serde.skip) else { continue };
        let ty = &field.ty;
        let name = serde.name(container.rename_all.as_deref(), &ident.to_string());
        let schema = quote!(Piece::All(<#ty as ::portcullis_sdk::schema::Schema>::SCHEMA));
        let schema = described(docs(&field.attrs).as_deref(), &schema);
        let comma = if properties.is_empty() { "" } else { "," };
        properties.push(quote!(Piece::Text(#comma), Piece::Quoted(#name), Piece::Text(":"), #schema,));
        for alias in &serde.aliases {
            properties.push(quote!(Piece::Text(","), Piece::Quoted(#alias), Piece::Text(":"), #schema,));
        }
        let is_optional = serde.default || !serde.aliases.is_empty();
        required.push(quote!(Required {
            name: #name,
            optional: #is_optional || <#ty as ::portcullis_sdk::schema::Schema>::OPTIONAL,
        }));
    }
    let description =
        description.map(|text| quote!(Piece::Text("\"description\":"), Piece::Quoted(#text), Piece::Text(","),));
    Ok(quote!({
        use ::portcullis_sdk::schema::{Piece, Required};
        Piece::All(&[
            Piece::Text("{"),
            #description
            Piece::Text("\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"),
            #(#properties)*
            Piece::Text("},\"required\":"),
            Piece::Required(&[#(#required),*]),
            Piece::Text("}"),
        ])
    }))
}

fn variants<'a>(
    variants: impl Iterator<Item = &'a Variant>,
    container: &Serde,
    description: Option<&str>,
) -> syn::Result<TokenStream> {
    let mut pieces = Vec::new();
    for variant in variants {
        let serde = Serde::of(&variant.attrs)?;
        if serde.skip {
            continue;
        }
        let name = serde.name(container.rename_all.as_deref(), &variant.ident.to_string());
        let comma = if pieces.is_empty() { "" } else { "," };
        for (index, name) in std::iter::once(&name).chain(&serde.aliases).enumerate() {
            let comma = if index > 0 { "," } else { comma };
            let one = one_variant(variant, &serde, container, name)?;
            pieces.push(quote!(Piece::Text(#comma), #one,));
        }
    }
    let description =
        description.map(|text| quote!(Piece::Text("\"description\":"), Piece::Quoted(#text), Piece::Text(","),));
    Ok(quote!({
        use ::portcullis_sdk::schema::Piece;
        Piece::All(&[Piece::Text("{"), #description Piece::Text("\"anyOf\":["), #(#pieces)* Piece::Text("]}")])
    }))
}

fn one_variant(variant: &Variant, serde: &Serde, container: &Serde, name: &str) -> syn::Result<TokenStream> {
    let description = docs(&variant.attrs);
    let description = description.as_deref();
    if let Some(tag) = container.tag.as_deref() {
        return match &variant.fields {
            Fields::Unit => object(std::iter::empty(), serde, description, Some((tag, name))),
            fields @ (Fields::Named(_) | Fields::Unnamed(_)) => whole(fields, serde, description, Some((tag, name))),
        };
    }
    if container.untagged {
        return whole(&variant.fields, serde, description, None);
    }
    let about =
        description.map(|text| quote!(Piece::Text("\"description\":"), Piece::Quoted(#text), Piece::Text(","),));
    if let Fields::Unit = variant.fields {
        return Ok(quote!(Piece::All(&[
            Piece::Text("{"), #about Piece::Text("\"const\":"), Piece::Quoted(#name), Piece::Text("}"),
        ])));
    }
    let inner = whole(&variant.fields, serde, None, None)?;
    Ok(quote!(Piece::All(&[
        Piece::Text("{"), #about
        Piece::Text("\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"),
        Piece::Quoted(#name), Piece::Text(":"), #inner, Piece::Text("},\"required\":["),
        Piece::Quoted(#name), Piece::Text("]}"),
    ])))
}
