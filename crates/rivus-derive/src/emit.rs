//! The `impl` of `rivus::Entity`.

use std::collections::BTreeMap;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use crate::declaration::{Declaration, Field, Form};
use crate::rule::at;

pub(crate) fn entity(declaration: &Declaration<'_>) -> TokenStream {
    let Declaration { ident, kind, life, open, aliases, id: (id, id_ty), fields, scope, rules } = declaration;
    let open = open.then(|| quote!(.open()));
    let aliases = aliases.then(|| quote!(.aliases()));
    let declared = fields.iter().map(declared);
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for field in fields {
        if let Some(group) = &field.group {
            groups.entry(group).or_default().push(&field.name);
        }
    }
    let groups = groups.iter().map(|(name, members)| quote!(.group(#name, [#(#members),*])));
    let scope = scope.iter().map(|field| quote!(.scope(#field)));
    let reads = fields.iter().map(read);
    let writes = fields.iter().map(write);
    // Errors about a type point at it.
    let id_made =
        quote_spanned!(at(id_ty.span())=> <#id_ty as ::core::convert::From<::std::string::String>>::from(id));
    let id_text =
        quote_spanned!(at(id_ty.span())=> <#id_ty as ::core::convert::AsRef<str>>::as_ref(&self.#id));
    quote! {
        #[automatically_derived]
        #[allow(clippy::useless_conversion, reason = "an id of another type needs it, a `String` does not")]
        impl ::rivus::Entity for #ident {
            const KIND: &'static str = #kind;

            fn declare(kind: ::rivus::KindBuilder) -> ::rivus::KindBuilder {
                let kind = kind.life(::rivus::Life::#life) #open #aliases #(#declared)* #(#groups)* #(#scope)*;
                #(let kind = #rules;)*
                kind
            }

            fn id(&self) -> &str {
                #id_text
            }

            fn read(
                id: ::std::string::String,
                fields: &mut ::rivus::Fields,
            ) -> ::core::result::Result<Self, ::rivus::Error> {
                ::core::result::Result::Ok(Self { #id: #id_made, #(#reads,)* })
            }

            fn write(&self, fields: &mut ::rivus::Fields) -> ::core::result::Result<(), ::rivus::Error> {
                #(#writes;)*
                ::core::result::Result::Ok(())
            }
        }
    }
}

fn declared(Field { name, policy, marks, .. }: &Field<'_>) -> TokenStream {
    let ranked = marks.is_ranked.then(|| quote!(.ranked(#name)));
    let restamp = marks.restamps.then(|| quote!(.restamp(#name)));
    let was = marks.was.iter().map(|was| quote!(.renamed(#name, #was)));
    let default = marks.default.iter().map(|value| quote!(.default_value(#name, #value)));
    quote!(.field(#name, #policy) #ranked #restamp #(#was)* #(#default)*)
}

fn read(Field { ident, ty, name, form, .. }: &Field<'_>) -> TokenStream {
    let taken = match form {
        Form::Counter => quote_spanned!(at(ty.span())=> ::rivus::Fields::take_counter::<#ty>(fields, #name)?),
        _ => quote_spanned!(at(ty.span())=> ::rivus::Fields::take::<#ty>(fields, #name)?),
    };
    quote!(#ident: #taken)
}

fn write(Field { ident, ty, name, form, marks, .. }: &Field<'_>) -> TokenStream {
    let (method, value) = match form {
        Form::Value => (quote!(put), quote!(&self.#ident)),
        Form::Multi => (quote!(put_multi), quote!(&self.#ident)),
        Form::Set => (quote!(put_set), quote!(&self.#ident)),
        Form::Map => (quote!(put_map), quote!(&self.#ident)),
        Form::Counter => (quote!(put_counter), quote!(self.#ident)),
    };
    let written = quote_spanned!(at(ty.span())=> ::rivus::Fields::#method::<#ty>(fields, #name, #value)?);
    if !marks.is_ranked {
        return written;
    }
    let by_default = quote_spanned!(at(ty.span())=> <#ty as ::core::default::Default>::default());
    let by_default = if matches!(form, Form::Counter) { by_default } else { quote!(&#by_default) };
    quote! {
        #written;
        ::rivus::Fields::leave_default(fields, #name, |fields| {
            ::rivus::Fields::#method::<#ty>(fields, #name, #by_default)
        })?
    }
}
