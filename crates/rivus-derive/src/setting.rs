//! What stands inside `#[rivus(...)]`, before anybody asks what it means.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Ident, Lit, LitInt, LitStr, Path, Result, Token, parenthesized, token};

/// One `key`, `key = value` or `key(settings)`.
pub(crate) struct Setting {
    pub(crate) key: Ident,
    pub(crate) value: Option<Given>,
}

/// What a key is set to.
pub(crate) enum Given {
    Lit(Lit),
    Path(Path),
    /// `(one, other)`.
    Names(Vec<Ident>),
    /// Settings of its own.
    Settings(Settings),
}

impl Parse for Setting {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let key = input.parse()?;
        if input.peek(token::Paren) {
            let inner;
            parenthesized!(inner in input);
            let mut settings = Settings::default();
            settings.add(inner.parse_terminated(Self::parse, Token![,])?)?;
            return Ok(Self { key, value: Some(Given::Settings(settings)) });
        }
        if input.parse::<Option<Token![=]>>()?.is_none() {
            return Ok(Self { key, value: None });
        }
        let given = if input.peek(Lit) || input.peek(Token![-]) {
            Given::Lit(input.parse()?)
        } else if input.peek(token::Paren) {
            let inner;
            parenthesized!(inner in input);
            Given::Names(Punctuated::<Ident, Token![,]>::parse_terminated(&inner)?.into_iter().collect())
        } else {
            Given::Path(input.parse()?)
        };
        Ok(Self { key, value: Some(given) })
    }
}

impl Setting {
    /// An error that points at the key.
    pub(crate) fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::new(self.key.span(), message)
    }

    pub(crate) fn text(&self) -> Result<&LitStr> {
        match &self.value {
            Some(Given::Lit(Lit::Str(text))) if !text.value().is_empty() => Ok(text),
            _ => Err(self.error(format!("`{0}` takes a text: `{0} = \"...\"`", self.key))),
        }
    }

    pub(crate) fn number(&self) -> Result<&LitInt> {
        match &self.value {
            Some(Given::Lit(Lit::Int(number))) => Ok(number),
            _ => Err(self.error(format!("`{0}` takes a whole number: `{0} = 5000`", self.key))),
        }
    }

    pub(crate) fn path(&self) -> Result<&Path> {
        match &self.value {
            Some(Given::Path(path)) => Ok(path),
            _ => Err(self.error(format!("`{0}` takes the path of a function: `{0} = longest`", self.key))),
        }
    }

    /// A field of the struct, or a word, written without quotes.
    pub(crate) fn name(&self) -> Result<&Ident> {
        let name = if let Some(Given::Path(path)) = &self.value { path.get_ident() } else { None };
        name.ok_or_else(|| self.error(format!("`{0}` takes a name without quotes: `{0} = ...`", self.key)))
    }

    /// One name, or several in parentheses.
    pub(crate) fn names(&self) -> Result<Vec<&Ident>> {
        match &self.value {
            Some(Given::Names(names)) if !names.is_empty() => Ok(names.iter().collect()),
            _ => Ok(vec![self.name()?]),
        }
    }

    /// What stands in its parentheses; nothing if it has none.
    pub(crate) fn settings(&mut self) -> Result<Settings> {
        match self.value.take() {
            None => Ok(Settings::default()),
            Some(Given::Settings(settings)) => Ok(settings),
            Some(_) => Err(self.error(format!("`{0}` takes settings: `{0}(...)`", self.key))),
        }
    }
}

/// The settings of one struct, field or rule; each is taken out by whoever understands it.
#[derive(Default)]
pub(crate) struct Settings(Vec<Setting>);

impl Settings {
    pub(crate) fn of(attributes: &[Attribute]) -> Result<Self> {
        let mut all = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("rivus")) {
            all.add(attribute.parse_args_with(Punctuated::<Setting, Token![,]>::parse_terminated)?)?;
        }
        Ok(all)
    }

    /// Only what has settings of its own may be there several times.
    fn add(&mut self, more: impl IntoIterator<Item = Setting>) -> Result<()> {
        let has_own = |setting: &Setting| matches!(setting.value, Some(Given::Settings(_)));
        for setting in more {
            if self.0.iter().any(|other| other.key == setting.key && !(has_own(other) && has_own(&setting))) {
                return Err(setting.error(format!("`{}` is given twice: remove one", setting.key)));
            }
            self.0.push(setting);
        }
        Ok(())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|setting| setting.key == key)
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Setting> {
        let at = self.0.iter().position(|setting| setting.key == key)?;
        Some(self.0.remove(at))
    }

    /// Takes all that have one of these keys.
    pub(crate) fn take_all(&mut self, keys: &[&str]) -> Vec<Setting> {
        let is_one = |setting: &Setting| keys.iter().any(|key| setting.key == key);
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(is_one);
        self.0 = left;
        taken
    }

    /// Takes a key that is set to nothing.
    pub(crate) fn take_word(&mut self, key: &str) -> Result<Option<Setting>> {
        match self.take(key) {
            Some(setting) if setting.value.is_some() => {
                Err(setting.error(format!("`{key}` takes no value: write `{key}` alone")))
            }
            found => Ok(found),
        }
    }

    /// Refuses what nobody took, `known` being the keys that there are.
    pub(crate) fn finish(self, known: &[&str]) -> Result<()> {
        let Some(left) = self.0.first() else { return Ok(()) };
        Err(left.error(format!("unknown setting `{}`: use one of {}", left.key, known.join(", "))))
    }

    /// Refuses the first of these keys that is there.
    pub(crate) fn refuse(&self, keys: &[&str], why: &str) -> Result<()> {
        let found = self.0.iter().find(|setting| keys.iter().any(|key| setting.key == key));
        found.map_or(Ok(()), |setting| Err(setting.error(format!("`{}` cannot be here: {why}", setting.key))))
    }
}
