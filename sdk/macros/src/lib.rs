//! The derive of `portcullis-sdk`: settings that are read strictly and say what they look like.
//!
//! `Deserialize` is serde's own, derived on a hidden twin with `deny_unknown_fields`; the schema is made here, from the same
//! fields and the same serde attributes.

mod attributes;
mod schema;

use proc_macro::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, parse_macro_input, parse_quote};

/// Derives `Config`: see `portcullis_sdk::Config`.
#[proc_macro_derive(Config, attributes(serde))]
pub fn config(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    if let Some(parameter) = input.generics.params.first() {
        return Err(syn::Error::new_spanned(parameter, "settings have no generic parameters: the schema is one text"));
    }
    if let Data::Union(data) = &input.data {
        return Err(syn::Error::new_spanned(data.union_token, "settings are a struct or an enum"));
    }
    if attributes::Serde::of(&input.attrs)?.default {
        return Err(syn::Error::new_spanned(&input.ident, "write `#[serde(default)]` on the fields instead"));
    }
    let schema = schema::of(input)?;
    let name = &input.ident;
    let twin = twin(input);
    Ok(quote! {
        const _: () = {
            #twin

            impl<'de> ::portcullis_sdk::serde::Deserialize<'de> for #name {
                fn deserialize<D>(deserializer: D) -> ::core::result::Result<Self, D::Error>
                where
                    D: ::portcullis_sdk::serde::Deserializer<'de>,
                {
                    Twin::deserialize(deserializer)
                }
            }

            impl ::portcullis_sdk::schema::Schema for #name {
                const SCHEMA: &'static [::portcullis_sdk::schema::Piece] = &[#schema];
            }
        };
    })
}

/// The same type again, with serde's derive on it, which then makes values of the first.
fn twin(input: &DeriveInput) -> DeriveInput {
    let mut twin = input.clone();
    let remote = input.ident.to_string();
    twin.ident = syn::Ident::new("Twin", input.ident.span());
    twin.vis = syn::Visibility::Inherited;
    keep_serde(&mut twin.attrs);
    match &mut twin.data {
        Data::Struct(data) => data.fields.iter_mut().for_each(|field| keep_serde(&mut field.attrs)),
        Data::Enum(data) => {
            for variant in &mut data.variants {
                keep_serde(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| keep_serde(&mut field.attrs));
            }
        }
        Data::Union(_) => {}
    }
    let strict: Attribute = parse_quote!(
        #[serde(crate = "::portcullis_sdk::serde", remote = #remote, deny_unknown_fields)]
    );
    // Before the attributes that it introduces.
    twin.attrs.insert(0, parse_quote!(#[derive(::portcullis_sdk::serde::Deserialize)]));
    twin.attrs.push(parse_quote!(#[allow(dead_code, reason = "its fields are those of the type it stands for")]));
    twin.attrs.push(strict);
    twin
}

fn keep_serde(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| attribute.path().is_ident("serde"));
}
