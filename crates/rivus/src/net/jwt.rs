//! Tokens that somebody else signs: JSON Web Tokens (RFC 7519) in compact form, checked with keys of a JWKS file.
//!
//! Owns what a token must be to grant something. The signatures are checked by ring. A key is used with the algorithm
//! that its own type has and with no other, whatever a token says; so a token that names none, or takes a public key
//! for a shared secret, is refused before its signature is looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use rivus_core::clock::Millis;
use rivus_core::session::{Authenticator, Denial, Grant, Grants, Rights, SUBJECT_BYTES_MAX, Scopes};
use serde::Deserialize;

use super::SyncError;
use super::files::{Reread, Watched};

/// Checks JSON Web Tokens.
///
/// A token must be signed with EdDSA (Ed25519), ES256 or RS256 by one of the keys, have an end (`exp`) that is not over
/// and a subject (`sub`), and name issuer and audience if they are set here. Its claim `rivus_rank`, a number from 0 to
/// 255, is the rank of its edits; 0 without it. Its claims `rivus_read` and `rivus_write`, each a list of what
/// [`Scopes::of`] takes, say which scopes it is for; without one of them that right is for all. A list without anything in
/// it is for none.
///
/// ```no_run
/// use rivus::{HubOptions, Jwt};
/// let jwt = Jwt::from_file("jwks.json")?.issuer("https://id.example.org").audience("rivus");
/// let options = HubOptions::closed().jwt(jwt);
/// # Ok::<(), rivus::SyncError>(())
/// ```
pub struct Jwt {
    keys: RwLock<Keys>,
    file: Option<(PathBuf, Mutex<Watched>)>,
    issuer: Option<String>,
    audience: Option<String>,
    rank_claim: String,
    leeway: Duration,
}

impl Jwt {
    /// With the public keys in this JSON Web Key Set (RFC 7517).
    ///
    /// # Errors
    /// [`SyncError::BadKeys`] if it is none, has a private key in it, or no key that can be used.
    pub fn from_jwks(json: &str) -> Result<Self, SyncError> {
        Ok(Self::new(read(json.as_bytes())?, None))
    }

    /// With the key set in this file. A hub reads it again when it changes.
    ///
    /// # Errors
    /// [`SyncError::BadKeys`] if it cannot be read, or as [`Jwt::from_jwks`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SyncError> {
        let path = path.as_ref();
        let watched = Watched::new(path);
        Ok(Self::new(read_file(path)?, Some((path.to_owned(), Mutex::new(watched)))))
    }

    fn new(keys: Keys, file: Option<(PathBuf, Mutex<Watched>)>) -> Self {
        let rank_claim = RANK_CLAIM.to_owned();
        Self { keys: RwLock::new(keys), file, issuer: None, audience: None, rank_claim, leeway: LEEWAY }
    }

    /// Takes only tokens whose `iss` is this.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Takes only tokens whose `aud` is, or has, this. Without it only tokens that have no `aud` are taken: others are
    /// meant for somebody else.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Reads the rank from this claim instead of `rivus_rank`.
    #[must_use]
    pub fn rank_claim(mut self, claim: impl Into<String>) -> Self {
        self.rank_claim = claim.into();
        self
    }

    /// How far the clocks of issuer and hub may differ. Without this 60 s.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Reads the file again if it has changed, and says whether it did. What cannot be used leaves the keys as they are,
    /// and is tried again.
    pub(crate) fn reload(&self, reread: Reread) -> Result<bool, SyncError> {
        let Some((path, watched)) = &self.file else { return Ok(false) };
        let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let now = watched.look();
        if reread == Reread::Changed && !watched.has_changed(now) {
            return Ok(false);
        }
        let keys = read_file(path)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        watched.note_read(now);
        Ok(true)
    }

    /// Whom the token names, if it grants anything at `now`.
    pub(crate) fn check(&self, token: &str, now: Millis) -> Result<Grant, Denial> {
        let (header, claims) = self.signed(token)?;
        if header.crit.is_some() {
            return Err(Denial::unauthorised("the token has extensions (crit) that the hub does not know"));
        }
        let number = |name: &str| claims.get(name).map(|claim| millis(claim, name)).transpose();
        let leeway = i64::try_from(self.leeway.as_millis()).unwrap_or(i64::MAX);
        let end = number("exp")?.ok_or_else(|| Denial::unauthorised("the token has no end (exp)"))?;
        let end = end.saturating_add(leeway);
        if now.0 >= end {
            return Err(Denial::expired("the token has expired: get a new one"));
        }
        if number("nbf")?.is_some_and(|begin| now.0 < begin.saturating_sub(leeway)) {
            return Err(Denial::unauthorised("the token is not valid yet (nbf), or the hub's clock is slow"));
        }
        let is = |name: &str, wanted: &str| claims.get(name).and_then(|claim| claim.as_str()) == Some(wanted);
        if self.issuer.as_ref().is_some_and(|issuer| !is("iss", issuer)) {
            return Err(Denial::unauthorised("the token is of another issuer (iss)"));
        }
        if !self.is_meant(claims.get("aud")) {
            return Err(Denial::unauthorised("the token is for another audience (aud)"));
        }
        let subject = claims.get("sub").and_then(|claim| claim.as_str()).unwrap_or_default();
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX {
            let message = format!("the token names no subject (sub) of 1 to {SUBJECT_BYTES_MAX} bytes");
            return Err(Denial::unauthorised(message));
        }
        let rank = match claims.get(&self.rank_claim) {
            None => 0,
            Some(rank) => rank.as_u64().and_then(|rank| u8::try_from(rank).ok()).ok_or_else(|| {
                Denial::unauthorised(format!("the token's `{}` is no number from 0 to 255", self.rank_claim))
            })?,
        };
        let rights = Rights {
            read: scopes(claims.get(READ_CLAIM), READ_CLAIM)?,
            write: scopes(claims.get(WRITE_CLAIM), WRITE_CLAIM)?,
        };
        Ok(Grant { subject: subject.to_owned(), rank, rights, expires: Some(Millis(end)) })
    }

    /// Header and claims of a token whose signature is right.
    fn signed(&self, token: &str) -> Result<(Header, Claims), Denial> {
        let malformed = || Denial::unauthorised("the token is no signed JWT");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed());
        }
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (head, payload) = message.split_once('.').ok_or_else(malformed)?;
        if payload.contains('.') {
            return Err(malformed());
        }
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let header: Header = serde_json::from_slice(&bytes(head)?).map_err(|_| malformed())?;
        let algorithm = Algorithm::named(&header.alg).ok_or_else(|| {
            Denial::unauthorised("the token is signed by an algorithm other than EdDSA, ES256 and RS256")
        })?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.find(header.kid.as_deref(), algorithm)?;
        if !key.verify(message.as_bytes(), &bytes(signature)?) {
            return Err(Denial::unauthorised("the token's signature is wrong"));
        }
        drop(keys);
        // Only now, so that nothing of a stranger's is looked into any further.
        let claims = serde_json::from_slice(&bytes(payload)?).map_err(|_| malformed())?;
        Ok((header, claims))
    }

    /// Whether the token is meant for this hub.
    fn is_meant(&self, claim: Option<&serde_json::Value>) -> bool {
        use serde_json::Value;
        let Some(wanted) = &self.audience else { return claim.is_none() };
        let is_it = |claim: &Value| claim.as_str() == Some(wanted);
        match claim {
            Some(Value::Array(all)) => all.iter().any(is_it),
            Some(one) => is_it(one),
            None => false,
        }
    }
}

impl Authenticator for Jwt {
    fn authenticate(&self, token: Option<&str>, now: Millis) -> Result<Grant, Denial> {
        self.check(token.ok_or_else(|| Denial::unauthorised("a token is needed"))?, now)
    }
}

/// Granted tokens, and besides them those that are signed.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) grants: Grants,
    pub(super) jwt: Arc<Jwt>,
}

impl Authenticator for Signed {
    fn authenticate(&self, token: Option<&str>, now: Millis) -> Result<Grant, Denial> {
        match (self.grants.authenticate(token, now), token) {
            (Err(_), Some(token)) => self.jwt.check(token, now),
            (granted, _) => granted,
        }
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Jwt");
        debug.field("issuer", &self.issuer).field("audience", &self.audience).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

type Claims = BTreeMap<String, serde_json::Value>;

/// A time in seconds since 1970, which may have a fraction, in ms.
#[expect(
    clippy::cast_possible_truncation,
    reason = "it is within what an i64 holds; the fraction of a ms is dropped"
)]
fn millis(claim: &serde_json::Value, name: &str) -> Result<i64, Denial> {
    let bad = || Denial::unauthorised(format!("the token's `{name}` is no time"));
    let millis = claim.as_f64().ok_or_else(bad)? * 1000.0;
    if millis.abs() < MILLIS_MAX { Ok(millis as i64) } else { Err(bad()) }
}

/// The scopes that a claim lists; all, if there is no such claim.
fn scopes(claim: Option<&serde_json::Value>, name: &str) -> Result<Scopes, Denial> {
    let Some(claim) = claim else { return Ok(Scopes::all()) };
    // What cannot be understood must not be taken for everything.
    let listed = || claim.as_array()?.iter().map(|pattern| pattern.as_str()).collect::<Option<Vec<_>>>();
    let patterns = listed()
        .ok_or_else(|| Denial::unauthorised(format!("the token's `{name}` is no list of names of scopes")))?;
    Scopes::of(patterns).map_err(|error| Denial::unauthorised(format!("the token's `{name}`: {error}")))
}

/// How tokens may be signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

impl Algorithm {
    fn named(name: &str) -> Option<Self> {
        match name {
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }
}

/// The keys of a set, with the name of each that has one.
#[derive(Debug)]
struct Keys(Vec<(Option<String>, Key)>);

impl Keys {
    /// The key by which a token is checked. A name in it (RFC 7515, section 4.1.4) is a hint: a key of that name, or else one
    /// without a name. Of those, and of all keys for a token that names none, exactly one may be for the token's algorithm.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Key, Denial> {
        if let Some(key) = kid.and_then(|kid| self.named(kid)) {
            let fits = key.algorithm() == algorithm;
            let other = || Denial::unauthorised("the token names another algorithm than its key has");
            return fits.then_some(key).ok_or_else(other);
        }
        // A key that has another name has not signed it.
        let may = |name: &Option<String>| kid.is_none() || name.is_none();
        let mut found = self.0.iter().filter(|(name, key)| may(name) && key.algorithm() == algorithm);
        match (found.next(), found.next()) {
            (Some((_, key)), None) => Ok(key),
            (None, _) => Err(Denial::unauthorised("the token is signed by a key that the hub does not know")),
            (Some(_), Some(_)) if kid.is_some() => Err(Denial::unauthorised(
                "the token names a key (kid), and of the hub's keys several of its algorithm have no name: \
                 name them in the key set",
            )),
            (Some(_), Some(_)) => Err(Denial::unauthorised(
                "the token does not say which key has signed it (kid), and the hub has several of its algorithm",
            )),
        }
    }

    fn named(&self, kid: &str) -> Option<&Key> {
        self.0.iter().find_map(|(name, key)| (name.as_deref() == Some(kid)).then_some(key))
    }
}

/// A public key.
#[derive(Debug)]
enum Key {
    Ed25519(Vec<u8>),
    /// The point, uncompressed.
    P256(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

impl Key {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::P256(_) => Algorithm::Es256,
            Self::Rsa { .. } => Algorithm::Rs256,
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Self::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            Self::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        };
        verified.is_ok()
    }
}

/// A key as it is written in a set. What else there is to a key does not matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    /// The private part.
    d: Option<serde::de::IgnoredAny>,
}

impl Jwk {
    /// The key; `None` if it is for something else.
    fn key(&self) -> Result<Option<Key>, String> {
        if self.d.is_some() {
            return Err("it has a private key in it: leave the part `d` out, and change the key".to_owned());
        }
        if self.purpose.as_ref().is_some_and(|purpose| purpose != "sig") {
            return Ok(None);
        }
        let part = |part: &Option<String>, name: &str, len: Option<usize>| {
            let text = part.as_deref().unwrap_or_default();
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("`{name}` is no base64url"))?;
            match len {
                Some(len) if bytes.len() != len => Err(format!("`{name}` has not {len} bytes")),
                _ => Ok(bytes),
            }
        };
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => Key::Ed25519(part(&self.x, "x", Some(32))?),
            ("EC", Some("P-256")) => {
                Key::P256([vec![4], part(&self.x, "x", Some(32))?, part(&self.y, "y", Some(32))?].concat())
            }
            ("RSA", _) => {
                let (n, e) = (part(&self.n, "n", None)?, part(&self.e, "e", None)?);
                if n.len() < RSA_BYTES_MIN || e.is_empty() {
                    return Err(format!("an RSA key has at least {} bits", RSA_BYTES_MIN * 8));
                }
                Key::Rsa { n, e }
            }
            _ => return Ok(None),
        };
        let fits = self.alg.as_ref().is_none_or(|alg| Algorithm::named(alg) == Some(key.algorithm()));
        Ok(fits.then_some(key))
    }
}

fn read_file(path: &Path) -> Result<Keys, SyncError> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string());
    let named = |reason: String| SyncError::BadKeys { reason: format!("{}: {reason}", path.display()) };
    read(&bytes.map_err(named)?).map_err(|error| match error {
        SyncError::BadKeys { reason } => named(reason),
        other => other,
    })
}

fn read(json: &[u8]) -> Result<Keys, SyncError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let bad = |reason: String| SyncError::BadKeys { reason };
    if json.len() > FILE_BYTES_MAX {
        return Err(bad(format!("the key set is longer than {FILE_BYTES_MAX} bytes")));
    }
    let set: Set =
        serde_json::from_slice(json).map_err(|error| bad(format!("this is no key set: {error}")))?;
    let mut keys = Keys(Vec::new());
    for (number, jwk) in set.keys.iter().enumerate() {
        // Kinds of keys that are not known here may look otherwise.
        let Ok(jwk) = Jwk::deserialize(jwk) else { continue };
        let key = jwk.key().map_err(|reason| bad(format!("key {number} of the set: {reason}")))?;
        let Some(key) = key else { continue };
        if jwk.kid.is_some() && keys.0.iter().any(|(kid, _)| *kid == jwk.kid) {
            return Err(bad(format!("key {number} of the set has the name of another (kid)")));
        }
        keys.0.push((jwk.kid, key));
    }
    if keys.0.is_empty() {
        return Err(bad("the set has no public key for EdDSA (Ed25519), ES256 or RS256".to_owned()));
    }
    Ok(keys)
}

/// The claim that holds the rank, unless told otherwise.
const RANK_CLAIM: &str = "rivus_rank";
/// The claim that lists the scopes that may be read.
const READ_CLAIM: &str = "rivus_read";
/// The claim that lists those that may be written.
const WRITE_CLAIM: &str = "rivus_write";
/// How far the clocks of issuer and hub may differ, unless told otherwise.
const LEEWAY: Duration = Duration::from_secs(60);
/// The longest token.
const TOKEN_BYTES_MAX: usize = rivus_core::wire::TOKEN_BYTES_MAX;
/// The longest key set.
const FILE_BYTES_MAX: usize = 1 << 20;
/// The shortest RSA modulus.
const RSA_BYTES_MIN: usize = 256;
/// Times beyond this many ms are none: the year 285,000.
const MILLIS_MAX: f64 = 9e15;

#[cfg(test)]
mod tests;
