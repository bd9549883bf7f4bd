//! What stands inside `#[rivus(...)]`, before anybody asks what it means.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Ident, Lit, LitInt, LitStr, Path, Result, Token};

/// One `key` or `key = value`.
pub(crate) struct Setting {
    pub(crate) key: Ident,
    pub(crate) value: Option<Given>,
}

/// What a key is set to.
pub(crate) enum Given {
    Lit(Lit),
    Path(Path),
}

impl Parse for Setting {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let key = input.parse()?;
        if input.parse::<Option<Token![=]>>()?.is_none() {
            return Ok(Self { key, value: None });
        }
        let given = if input.peek(Lit) { Given::Lit(input.parse()?) } else { Given::Path(input.parse()?) };
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
}

/// The settings of one struct or field; each is taken out by whoever understands it.
pub(crate) struct Settings(Vec<Setting>);

impl Settings {
    pub(crate) fn of(attributes: &[Attribute]) -> Result<Self> {
        let mut all: Vec<Setting> = Vec::new();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("rivus")) {
            for setting in attribute.parse_args_with(Punctuated::<Setting, Token![,]>::parse_terminated)? {
                if all.iter().any(|other| other.key == setting.key) {
                    return Err(setting.error(format!("`{}` is given twice: remove one", setting.key)));
                }
                all.push(setting);
            }
        }
        Ok(Self(all))
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Setting> {
        let at = self.0.iter().position(|setting| setting.key == key)?;
        Some(self.0.remove(at))
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
