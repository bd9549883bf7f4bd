//! Bytes put together of named parts, so that faults can be put in by name.

/// Bytes with a name for each part.
#[derive(Clone, Default)]
pub(super) struct Parts(Vec<(&'static str, Vec<u8>)>);

impl Parts {
    pub(super) fn new(parts: &[(&'static str, &[u8])]) -> Self {
        Self(parts.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(_, bytes)| bytes).copied().collect()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// With a part's bytes replaced.
    ///
    /// # Panics
    /// If there is no such part.
    pub(super) fn with(&self, name: &str, bytes: &[u8]) -> Self {
        assert!(self.names().any(|part| part == name), "there is no part `{name}`");
        let replaced = |(part, old): &(&'static str, Vec<u8>)| {
            (*part, if *part == name { bytes.to_vec() } else { old.clone() })
        };
        Self(self.0.iter().map(replaced).collect())
    }

    /// With more parts behind these.
    pub(super) fn and(mut self, more: &[(&'static str, &[u8])]) -> Self {
        self.0.extend(Self::new(more).0);
        self
    }

    /// Cut off before each part but the first, by that part's name.
    pub(super) fn cuts(&self) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
        self.names().enumerate().skip(1).map(|(count, name)| {
            (name, self.0.iter().take(count).flat_map(|(_, bytes)| bytes).copied().collect())
        })
    }
}

/// LEB128 in its shortest form.
pub(super) fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push(u8::try_from(n & 0x7f).unwrap_or_default() | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).unwrap_or_default());
    out
}

/// A signed difference.
pub(super) fn zigzag(n: i64) -> Vec<u8> {
    varint(((n << 1) ^ (n >> 63)).cast_unsigned())
}

/// A length and as many bytes.
pub(super) fn slice(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len() as u64), bytes].concat()
}

/// An address without its key.
pub(super) fn prefix(class: u8, name: &[u8]) -> Vec<u8> {
    let len = u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[class], &len[..], name].concat()
}
