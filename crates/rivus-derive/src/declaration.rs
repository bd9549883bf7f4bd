//! What a struct declares: its settings, understood and checked.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Ident, Path, Result, Type};

use crate::rule;
use crate::setting::{Given, Setting, Settings};

/// An entity as declared.
pub(crate) struct Declaration<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) kind: String,
    /// A variant of `Life`.
    pub(crate) life: TokenStream,
    pub(crate) open: bool,
    pub(crate) aliases: bool,
    pub(crate) id: (&'a Ident, &'a Type),
    pub(crate) fields: Vec<Field<'a>>,
    /// The name of the field that says which scope an entity is in.
    pub(crate) scope: Option<String>,
    /// Each makes the kind one with the rule.
    pub(crate) rules: Vec<TokenStream>,
}

/// A stored field.
pub(crate) struct Field<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) ty: &'a Type,
    /// What it is stored under.
    pub(crate) name: String,
    /// A `FieldType`.
    pub(crate) policy: TokenStream,
    pub(crate) form: Form,
    pub(crate) group: Option<String>,
    pub(crate) marks: Marks,
}

/// What is said of a field beside its policy.
#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) is_ranked: bool,
    pub(crate) restamps: bool,
    /// The name that it was stored under.
    pub(crate) was: Option<String>,
    /// A `Value`.
    pub(crate) default: Option<TokenStream>,
}

impl Marks {
    fn of(settings: &mut Settings) -> Result<Self> {
        let is_ranked = settings.take_word("authority")?.is_some();
        let has_margin = settings.has("margin_ms") || settings.has("margin");
        let restamps = match settings.take("on_conflict") {
            None => false,
            Some(word) if word.name()? != "restamp" => {
                return Err(Error::new(
                    word.name()?.span(),
                    "on a conflict a replica can `restamp` its value",
                ));
            }
            Some(word) if !has_margin => {
                return Err(word.error(
                    "to write a lost value again the field needs a margin: without one nobody can tell a \
                     concurrent write from one that has seen it",
                ));
            }
            Some(_) => true,
        };
        let was = settings.take("was").map(|was| was.text().map(syn::LitStr::value)).transpose()?;
        let default = settings.take("default").map(|default| rule::literal(&default)).transpose()?;
        Ok(Self { is_ranked, restamps, was, default })
    }
}

/// How a field goes between the struct and what is stored.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Value,
    Multi,
    Set,
    Map,
    Counter,
}

impl<'a> Declaration<'a> {
    pub(crate) fn of(input: &'a DeriveInput) -> Result<Self> {
        let named = match &input.data {
            Data::Struct(data) => match &data.fields {
                Fields::Named(named) => Some(&named.named),
                _ => None,
            },
            _ => None,
        };
        let Some(named) = named else {
            return Err(Error::new_spanned(&input.ident, "an entity is a struct with named fields"));
        };
        if !input.generics.params.is_empty() {
            return Err(Error::new_spanned(
                &input.generics,
                "an entity has no generic parameters: a kind is one type",
            ));
        }
        let mut settings = Settings::of(&input.attrs)?;
        let kind = match settings.take("kind") {
            Some(kind) => kind.text()?.value(),
            None => snake_case(&input.ident.to_string()),
        };
        let life = settings.take("life").map_or_else(|| Ok(quote!(DeleteWins)), |life| life_of(&life))?;
        let open = settings.take_word("open")?.is_some();
        let aliases = settings.take_word("aliases")?.is_some();
        let mut rules: Vec<_> = settings.take_all(rule::STRUCT_KEYS).into_iter().map(|s| (None, s)).collect();
        settings.finish(STRUCT_KEYS)?;
        let (mut id, mut fields, mut scope) = (None, Vec::<Field<'_>>::new(), None);
        for field in named {
            let Some(ident) = &field.ident else { continue };
            let mut settings = Settings::of(&field.attrs)?;
            if let Some(setting) = settings.take_word("id")? {
                settings.refuse(rule::FIELD_KEYS, "the id is no field of its own, so no rule is about it")?;
                settings.refuse(FIELD_KEYS, "the id is no field of its own and has no policy")?;
                settings.finish(FIELD_KEYS)?;
                if id.replace((ident, &field.ty)).is_some() {
                    return Err(setting.error("an entity has one id: remove the other"));
                }
                continue;
            }
            rules.extend(settings.take_all(rule::FIELD_KEYS).into_iter().map(|s| (Some(fields.len()), s)));
            let names_scope = settings.take_word("scope")?;
            let field = Field::of(ident, &field.ty, settings)?;
            if fields.iter().any(|other| other.name == field.name) {
                let message = format!("two fields are stored as `{}`: rename one", field.name);
                return Err(Error::new_spanned(field.ident, message));
            }
            if let Some(word) = names_scope
                && scope.replace(field.name.clone()).is_some()
            {
                return Err(word.error("one field names the scope: remove the other"));
            }
            fields.push(field);
        }
        let Some(id) = id else {
            let message = "an entity needs an id: mark a field of type `String` with `#[rivus(id)]`";
            return Err(Error::new_spanned(&input.ident, message));
        };
        let declare = |(at, rule)| rule::declare(&fields, at, rule);
        let rules = rules.into_iter().map(declare).collect::<Result<_>>()?;
        Ok(Self { ident: &input.ident, kind, life, open, aliases, id, fields, scope, rules })
    }
}

impl<'a> Field<'a> {
    fn of(ident: &'a Ident, ty: &'a Type, mut settings: Settings) -> Result<Self> {
        let name = match settings.take("rename") {
            Some(name) => name.text()?.value(),
            None => ident.to_string().trim_start_matches("r#").to_owned(),
        };
        let plain = quote!(::rivus::FieldType::PLAIN);
        if let Some(group) = settings.take("group") {
            settings.refuse(MARK_KEYS, "a group is one register, of which nothing more can be said")?;
            settings.refuse(
                POLICY_KEYS,
                "a group is one register of which the newest wins, so its members are plain",
            )?;
            settings.finish(FIELD_KEYS)?;
            let group = Some(group.text()?.value());
            let marks = Marks::default();
            return Ok(Self { ident, ty, name, policy: plain, form: Form::Value, group, marks });
        }
        let marks = Marks::of(&mut settings)?;
        for (key, policy, form) in types() {
            if settings.take_word(key)?.is_some() {
                let why = format!("a {key} field has a policy of its own");
                let wins = if key == "set" { settings.take("wins") } else { None };
                settings.refuse(POLICY_KEYS, &why)?;
                settings.finish(FIELD_KEYS)?;
                let policy = wins.map_or(Ok(policy), |wins| set_that(&wins))?;
                return Ok(Self { ident, ty, name, policy, form, group: None, marks });
            }
        }
        settings.refuse(&["wins"], "it goes with `set`")?;
        let policy = match settings.take("custom") {
            Some(custom) => {
                settings.refuse(POLICY_KEYS, "`custom` folds all concurrent values")?;
                let resolver = function(custom.path()?)?;
                quote!(::rivus::FieldType::Custom { resolver: #resolver })
            }
            None => value_policy(&mut settings)?.unwrap_or(plain),
        };
        settings.finish(FIELD_KEYS)?;
        Ok(Self { ident, ty, name, policy, form: Form::Value, group: None, marks })
    }
}

/// The types that are chosen by a word: the word, a `FieldType`, and the form.
fn types() -> [(&'static str, TokenStream, Form); 7] {
    [
        ("multi", quote!(::rivus::FieldType::Multi), Form::Multi),
        ("set", quote!(::rivus::FieldType::Set { wins: ::rivus::SetWins::Add }), Form::Set),
        ("map", quote!(::rivus::FieldType::Map), Form::Map),
        ("counter", quote!(::rivus::FieldType::Counter), Form::Counter),
        ("max", quote!(::rivus::FieldType::Max), Form::Value),
        ("min", quote!(::rivus::FieldType::Min), Form::Value),
        ("flag", quote!(::rivus::FieldType::Flag), Form::Value),
    ]
}

fn life_of(life: &Setting) -> Result<TokenStream> {
    Ok(match life.text()?.value().as_str() {
        "delete-wins" => quote!(DeleteWins),
        "edit-revives" => quote!(EditRevives),
        "newest" => quote!(Newest),
        other => {
            let message =
                format!("unknown life `{other}`: use \"delete-wins\", \"edit-revives\" or \"newest\"");
            return Err(Error::new(life.text()?.span(), message));
        }
    })
}

fn set_that(wins: &Setting) -> Result<TokenStream> {
    let wins = match wins.text()?.value().as_str() {
        "add" => quote!(Add),
        "remove" => quote!(Remove),
        other => {
            let message = format!("in a set \"add\" or \"remove\" wins, not `{other}`");
            return Err(Error::new(wins.text()?.span(), message));
        }
    };
    Ok(quote!(::rivus::FieldType::Set { wins: ::rivus::SetWins::#wins }))
}

/// The policy of a value with a margin; `None` if there is none.
fn value_policy(settings: &mut Settings) -> Result<Option<TokenStream>> {
    let margin = match (settings.take("margin_ms"), settings.take("margin")) {
        (Some(_), Some(margin)) => return Err(margin.error("`margin_ms` is given too: remove one")),
        (Some(ms), None) => {
            let ms: u64 = ms.number()?.base10_parse()?;
            Some(quote!(::rivus::Margin::Ms(#ms)))
        }
        (None, Some(margin)) => {
            let text = margin.text()?;
            if text.value() != "inf" {
                let message = "a margin is `margin_ms = 5000` or `margin = \"inf\"`";
                return Err(Error::new(text.span(), message));
            }
            Some(quote!(::rivus::Margin::Infinite))
        }
        (None, None) => None,
    };
    let resolver = settings.take("resolver");
    let Some(margin) = margin else {
        return match resolver {
            Some(resolver) => Err(resolver.error(
                "a resolver needs a margin: without one only the newest write is left to choose from",
            )),
            None => Ok(None),
        };
    };
    let resolver = resolver.map_or_else(|| Ok(quote!(::rivus::Resolver::Newest)), |r| resolver_of(&r))?;
    Ok(Some(quote!(::rivus::FieldType::Value { margin: #margin, resolver: #resolver })))
}

fn resolver_of(setting: &Setting) -> Result<TokenStream> {
    if let Some(Given::Path(path)) = &setting.value {
        return function(path);
    }
    let text = setting.text()?;
    let resolver = match text.value().as_str() {
        "newest" => quote!(Newest),
        "oldest" => quote!(Oldest),
        "rank" => quote!(Rank),
        "min" => quote!(Min),
        "max" => quote!(Max),
        other => {
            let message = format!(
                "unknown resolver `{other}`: use \"newest\", \"oldest\", \"rank\", \"min\", \"max\", or the path \
                 of a function without quotes"
            );
            return Err(Error::new(text.span(), message));
        }
    };
    Ok(quote!(::rivus::Resolver::#resolver))
}

fn function(path: &Path) -> Result<TokenStream> {
    let Some(last) = path.segments.last() else {
        return Err(Error::new_spanned(path, "a function has a name"));
    };
    let name = last.ident.to_string();
    Ok(quote!(::rivus::Resolver::Custom(::rivus::CustomResolver::new(#name, #path))))
}

fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.trim_start_matches("r#").chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| letters.get(before));
        let starts_word = before.is_some_and(|before| {
            let ends_capitals =
                before.is_uppercase() && letters.get(at + 1).is_some_and(|next| next.is_lowercase());
            before.is_lowercase() || before.is_numeric() || ends_capitals
        });
        if letter.is_uppercase() && starts_word {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

const STRUCT_KEYS: &[&str] = &["kind", "life", "open", "aliases", "at_most_one", "unique"];
const FIELD_KEYS: &[&str] = &[
    "id",
    "rename",
    "group",
    "margin_ms",
    "margin",
    "resolver",
    "custom",
    "multi",
    "set",
    "wins",
    "map",
    "counter",
    "max",
    "min",
    "flag",
    "scope",
    "unique",
    "reference",
    "bound",
    "at_least",
    "at_most",
    "authority",
    "on_conflict",
    "was",
    "default",
];
const MARK_KEYS: &[&str] = &["authority", "on_conflict", "was", "default"];
const POLICY_KEYS: &[&str] = &[
    "margin_ms",
    "margin",
    "resolver",
    "custom",
    "multi",
    "set",
    "wins",
    "map",
    "counter",
    "max",
    "min",
    "flag",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_after_its_struct() {
        for (name, kind) in
            [("Task", "task"), ("TimeEntry", "time_entry"), ("HTTPRoute2Go", "http_route2_go")]
        {
            assert_eq!(snake_case(name), kind);
        }
    }
}
