//! The rules that a struct declares: calls of the builder, one each.
//!
//! Fields are named as the struct does. A rule without a name is called after what it is and the field that it shows
//! otherwise, under the name that this is stored under, so that renaming a struct's field renames no rule.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, GenericArgument, Ident, Lit, PathArguments, Result, Type};

use crate::declaration::{Field, Form};
use crate::setting::{Given, Setting, Settings};

/// Rules that stand on the struct.
pub(crate) const STRUCT_KEYS: &[&str] = &["at_most_one", "unique"];
/// Rules that stand on the field that they show otherwise.
pub(crate) const FIELD_KEYS: &[&str] = &["unique", "reference", "bound", "at_least", "at_most"];

/// The call that declares a rule.
pub(crate) fn declare(fields: &[Field<'_>], at: Option<usize>, mut rule: Setting) -> Result<TokenStream> {
    let key = rule.key.to_string();
    let on = at.and_then(|at| fields.get(at));
    let of = Of { fields, word: &key, on };
    match (key.as_str(), on) {
        ("at_most_one", _) => of.at_most_one(rule.settings()?, &rule),
        ("unique", _) => of.unique(rule.settings()?, &rule),
        ("reference", Some(field)) => of.reference(rule.settings()?, &rule, field),
        ("bound", Some(field)) => of.bound(rule.settings()?, &rule, field),
        (_, Some(field)) => of.expr(&rule, field),
        (_, None) => Err(rule.error("this rule stands on a field")),
    }
}

/// Where an error about it points; its names are those of the code around it, also in a macro's expansion.
pub(crate) fn at(span: Span) -> Span {
    span.resolved_at(Span::call_site())
}

struct Of<'f> {
    fields: &'f [Field<'f>],
    word: &'f str,
    on: Option<&'f Field<'f>>,
}

impl<'f> Of<'f> {
    fn at_most_one(&self, mut settings: Settings, rule: &Setting) -> Result<TokenStream> {
        let group = self.group(&mut settings)?;
        let open_word = self.must(settings.take("while_none"), rule, "while_none", "stop")?;
        let open = self.field(open_word.name()?)?;
        let order_word = self.must(settings.take("order"), rule, "order", "start")?;
        let order = self.field(order_word.name()?)?;
        let is_ms = match settings.take("time") {
            None => false,
            Some(time) if time.name()? == "ms" => true,
            Some(time) => {
                return Err(Error::new(
                    time.name()?.span(),
                    "the order field's time is `ms`, milliseconds since 1970",
                ));
            }
        };
        let name = self.name(&mut settings, &open.name)?;
        settings.finish(&["group", "while_none", "order", "time", "name"])?;
        let (method, ident) = (if is_ms { quote!(at_most_one_ms) } else { quote!(at_most_one) }, open.ident);
        let (open_ty, order_ty) = (open.ty, order.ty);
        // It must be one that can be none, and that can show what the rule shows in it.
        let mut check = quote_spanned! {at(open_word.name()?.span())=>
            let _ = |entity: &Self| ::core::option::Option::is_none(&entity.#ident);
        };
        if inside_option(open_ty).is_some() {
            check.extend(if is_ms {
                let (open_span, order_span) = (at(open_ty.span()), at(order_ty.span()));
                let open = quote_spanned!(open_span=> must_be::<#open_ty>(););
                let order = quote_spanned!(order_span=> must_be::<#order_ty>(););
                quote!(fn must_be<T: ::rivus::ShowsMillis>() {} #open #order)
            } else {
                let must = quote_spanned!(at(open_ty.span())=> must_be::<#open_ty, #order_ty>(););
                quote!(fn must_be<T: ::rivus::ShowsEnd<O>, O>() {} #must)
            });
        }
        let (open, order) = (&open.name, &order.name);
        Ok(quote!({ #check kind.#method(#name, #group, #open, #order) }))
    }

    fn unique(&self, mut settings: Settings, rule: &Setting) -> Result<TokenStream> {
        let group = self.group(&mut settings)?;
        let field = match (settings.take("field"), self.on) {
            (None, Some(on)) => self.one_value(on, &rule.key)?,
            (Some(field), Some(_)) => {
                return Err(field.error("the field that is unique is the one that this stands on: remove it"));
            }
            (field, None) => self.field(self.must(field, rule, "field", "name")?.name()?)?,
        };
        let on_clash =
            self.one_of(settings.take("on_clash"), &[("rename", quote!(Rename)), ("alias", quote!(Alias))])?;
        let on_clash = on_clash.unwrap_or_else(|| quote!(Rename));
        let name = self.name(&mut settings, &field.name)?;
        settings.finish(&["group", "field", "on_clash", "name"])?;
        let (ty, field) = (field.ty, &field.name);
        let check = (on_clash.to_string() == "Rename").then(|| {
            let must = quote_spanned!(at(ty.span())=> must_be::<#ty>(););
            quote!(fn must_be<T: ::rivus::ShowsText>() {} #must)
        });
        Ok(quote!({ #check kind.unique_with(#name, #group, #field, ::rivus::OnClash::#on_clash) }))
    }

    fn reference(&self, mut settings: Settings, rule: &Setting, field: &Field<'_>) -> Result<TokenStream> {
        self.one_value(field, &rule.key)?;
        let words = [("nullify", quote!(Nullify)), ("cascade", quote!(Cascade)), ("keep", quote!(Keep))];
        let given = settings.take("on_gone");
        let is_option = inside_option(field.ty).is_some();
        let on_gone = match self.one_of(given, &words)? {
            Some(word) if is_option || word.to_string() != "Nullify" => word,
            None if is_option => quote!(Nullify),
            found => {
                let what = if found.is_some() { "cannot show none" } else { "says not what becomes of it" };
                return Err(rule.error(format!(
                    "a reference that is not optional {what} when what it names is gone: make it an `Option`, or \
                     choose `on_gone = keep` or `on_gone = cascade`"
                )));
            }
        };
        let name = self.name(&mut settings, &field.name)?;
        settings.finish(&["on_gone", "name"])?;
        let (field, ty) = (&field.name, field.ty);
        let to = quote_spanned!(at(ty.span())=> <#ty as ::rivus::Refers>::KIND);
        Ok(quote!(kind.reference(#name, #field, #to, ::rivus::OnGone::#on_gone)))
    }

    fn bound(&self, mut settings: Settings, rule: &Setting, field: &Field<'_>) -> Result<TokenStream> {
        self.one_value(field, &rule.key)?;
        let (min, max) = (settings.take("min"), settings.take("max"));
        if min.is_none() && max.is_none() {
            return Err(rule.error("a bound has a `min`, a `max`, or both: `bound(min = 0, max = 100)`"));
        }
        let value = |setting: Option<Setting>| {
            setting.map_or_else(
                || Ok(quote!(::core::option::Option::None)),
                |setting| literal(&setting).map(|value| quote!(::core::option::Option::Some(#value))),
            )
        };
        let (min, max) = (value(min)?, value(max)?);
        let name = self.name(&mut settings, &field.name)?;
        settings.finish(&["min", "max", "name"])?;
        let field = &field.name;
        Ok(quote!(kind.bound(#name, #field, #min, #max)))
    }

    fn expr(&self, rule: &Setting, field: &Field<'_>) -> Result<TokenStream> {
        self.one_value(field, &rule.key)?;
        let other = rule.name()?;
        let other_field = self.field(other)?;
        if other_field.name == field.name {
            return Err(Error::new(other.span(), "a field cannot be compared with itself: name another"));
        }
        let side = if self.word == "at_least" { quote!(AtLeast) } else { quote!(AtMost) };
        let (name, field, other) = (format!("{}_{}", self.word, field.name), &field.name, &other_field.name);
        Ok(quote!(kind.expr(#name, #field, ::rivus::Side::#side, #other)))
    }

    fn group(&self, settings: &mut Settings) -> Result<TokenStream> {
        let names = match settings.take("group") {
            None => Vec::new(),
            Some(group) => {
                group.names()?.into_iter().map(|name| Ok(&self.field(name)?.name)).collect::<Result<_>>()?
            }
        };
        let count = names.len();
        Ok(quote!([#(#names),*] as [&str; #count]))
    }

    fn name(&self, settings: &mut Settings, field: &str) -> Result<String> {
        let given = settings.take("name");
        given.map_or_else(|| Ok(format!("{}_{field}", self.word)), |name| Ok(name.text()?.value()))
    }

    fn must(&self, found: Option<Setting>, rule: &Setting, key: &str, like: &str) -> Result<Setting> {
        found.ok_or_else(|| {
            rule.error(format!("`{}` lacks `{key}`: add it, as in `{key} = {like}`", self.word))
        })
    }

    /// The variant that a word stands for.
    fn one_of(&self, setting: Option<Setting>, words: &[(&str, TokenStream)]) -> Result<Option<TokenStream>> {
        let Some(setting) = setting else { return Ok(None) };
        let given = setting.name()?;
        if let Some((_, variant)) = words.iter().find(|(word, _)| given == word) {
            return Ok(Some(variant.clone()));
        }
        let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message = format!("unknown `{}` `{given}`: use {}", setting.key, known.join(" or "));
        Err(Error::new(given.span(), message))
    }

    fn field(&self, name: &Ident) -> Result<&'f Field<'f>> {
        let Some(field) = self.fields.iter().find(|field| field.ident == name) else {
            let message = format!("`{name}` is no field that is stored: name one of the struct's");
            return Err(Error::new(name.span(), message));
        };
        self.one_value(field, name)
    }

    fn one_value(&self, field: &'f Field<'f>, at: &Ident) -> Result<&'f Field<'f>> {
        if matches!(field.form, Form::Value) {
            return Ok(field);
        }
        Err(Error::new(
            at.span(),
            format!("a rule needs a field of one value, which `{}` is not", field.ident),
        ))
    }
}

/// What a type holds that is written as an `Option`.
fn inside_option(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(inner) if last.ident == "Option" => Some(inner),
        _ => None,
    }
}

/// A literal as a `Value`.
pub(crate) fn literal(setting: &Setting) -> Result<TokenStream> {
    match &setting.value {
        Some(Given::Lit(Lit::Int(number))) => {
            let number: i64 = number.base10_parse()?;
            Ok(quote!(::rivus::Value::Int(#number)))
        }
        Some(Given::Lit(Lit::Float(number))) => {
            let number: f64 = number.base10_parse()?;
            Ok(quote!(::rivus::Value::Float(#number)))
        }
        Some(Given::Lit(Lit::Str(text))) => Ok(quote!(::rivus::Value::from(#text))),
        Some(Given::Lit(Lit::Bool(truth))) => Ok(quote!(::rivus::Value::Bool(#truth))),
        _ => Err(setting.error(format!("`{}` takes a number, a text, `true` or `false`", setting.key))),
    }
}
