//! How a store is served.

use std::fmt;
#[cfg(feature = "tls")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rivus_core::replica::{Proposed, Refusal};
use rivus_core::session::{
    Access, Authenticator, Authorizer, By, Gate, Grant, Grants, Limits, Restore, Validator,
};

use super::collect::Collecting;
use super::guests::Bounds;
use crate::net::HANDSHAKE_MAX;
#[cfg(feature = "tls")]
use crate::net::SyncError;
#[cfg(feature = "jwt")]
use crate::net::jwt::{Jwt, Signed};
#[cfg(feature = "tls")]
use crate::net::tls::Certificate;

/// How a store is served.
///
/// ```
/// use rivus::HubOptions;
/// let options = HubOptions::open().grant("secret", 5);
/// ```
#[derive(Clone)]
pub struct HubOptions {
    grants: Grants,
    authenticator: Option<Arc<dyn Authenticator>>,
    #[cfg(feature = "jwt")]
    pub(super) jwt: Option<Arc<Jwt>>,
    authorizer: Option<Arc<dyn Authorizer>>,
    validator: Option<Arc<dyn Validator>>,
    limits: Limits,
    restore: Option<Restore>,
    /// Whether any token is granted.
    has_tokens: bool,
    pub(super) origins: Vec<String>,
    pub(super) peer: bool,
    pub(super) connections_max: usize,
    pub(super) bounds: Bounds,
    #[cfg(feature = "tls")]
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) admin: Option<String>,
    pub(super) disk_free_min: u64,
    pub(super) drain_max: Duration,
    pub(super) handshake_max: Duration,
    pub(super) collecting: Collecting,
}

impl HubOptions {
    fn new(grants: Grants) -> Self {
        Self {
            grants,
            authenticator: None,
            #[cfg(feature = "jwt")]
            jwt: None,
            authorizer: None,
            validator: None,
            limits: Limits::default(),
            restore: None,
            has_tokens: false,
            origins: Vec::new(),
            peer: false,
            connections_max: CONNECTIONS_MAX,
            bounds: Bounds {
                connections_max: ADDRESS_CONNECTIONS_MAX,
                per_second: ACCEPTS_PER_SECOND,
                burst: ACCEPTS_BURST,
                loopback: false,
            },
            #[cfg(feature = "tls")]
            certificate: None,
            admin: None,
            disk_free_min: DISK_FREE_MIN,
            drain_max: DRAIN_MAX,
            handshake_max: HANDSHAKE_MAX,
            collecting: Collecting::default(),
        }
    }

    /// Lets everybody in, with rank 0.
    #[must_use]
    pub fn open() -> Self {
        Self::new(Grants::everybody())
    }

    /// Lets in only those who show a token that is granted.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(Grants::nobody())
    }

    /// Lets in those who show `token`, and lets their edits bear `rank`, from 0 to 255.
    #[must_use]
    pub fn grant(mut self, token: impl Into<String>, rank: u8) -> Self {
        self.grants = self.grants.grant(token, rank);
        self.has_tokens = true;
        self
    }

    /// Lets in those without a token as well, with this rank. What they bring is nobody's until somebody with a name shows
    /// it.
    ///
    /// ```
    /// use rivus::HubOptions;
    /// let options = HubOptions::closed().grant_as("ann", "secret", 5).anonymous(0);
    /// ```
    #[must_use]
    pub fn anonymous(mut self, rank: u8) -> Self {
        self.grants = self.grants.anonymous(rank);
        self
    }

    /// Lets in those who show `token` as `subject`, a name of 1 to 255 bytes. Unlike with [`HubOptions::grant`], the token
    /// may later be replaced by another one of the same subject: a database belongs to the subject that it first
    /// connected as.
    ///
    /// ```
    /// use rivus::HubOptions;
    /// let options = HubOptions::closed().grant_as("ann", "secret", 5).grant_as("ann", "next secret", 5);
    /// ```
    #[must_use]
    pub fn grant_as(mut self, subject: impl Into<String>, token: impl Into<String>, rank: u8) -> Self {
        self.grants = self.grants.grant_as(subject, token, rank);
        self.has_tokens = true;
        self
    }

    /// Lets in those who show `token`, with this grant: the one way to say which scopes a token is for. Without a subject
    /// they bear a name made of the token, as with [`HubOptions::grant`].
    ///
    /// ```
    /// use rivus::{Grant, HubOptions, Rights, Scopes};
    /// let rights = Rights { read: Scopes::of(["home", "work/*"])?, write: Scopes::of(["home"])? };
    /// let grant = Grant { subject: "ann".to_owned(), rights, ..Grant::default() };
    /// let options = HubOptions::closed().grant_with("secret", grant);
    /// # Ok::<(), rivus::ScopesError>(())
    /// ```
    #[must_use]
    pub fn grant_with(mut self, token: impl Into<String>, grant: Grant) -> Self {
        self.grants = self.grants.grant_with(token, grant);
        self.has_tokens = true;
        self
    }

    /// Lets in those who show a token that this finds good, besides those who show one that was granted.
    ///
    /// ```no_run
    /// use rivus::{HubOptions, Jwt};
    /// let options = HubOptions::closed().jwt(Jwt::from_file("jwks.json")?.audience("rivus"));
    /// # Ok::<(), rivus::SyncError>(())
    /// ```
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn jwt(mut self, jwt: Jwt) -> Self {
        self.jwt = Some(Arc::new(jwt));
        self
    }

    /// Asks this who somebody is, instead of comparing tokens with those that were granted.
    ///
    /// ```
    /// use rivus::{By, Denial, Grant, HubOptions};
    /// let options = HubOptions::closed().authenticator(By(|token: Option<&str>, _now| match token {
    ///     Some("open sesame") => Ok(Grant { subject: "ali".to_owned(), ..Grant::default() }),
    ///     _ => Err(Denial::unauthorised("say the words")),
    /// }));
    /// ```
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Asks this what a subject may do with a scope (the default scope is empty), anew for every page and every edit.
    ///
    /// ```
    /// use rivus::{Access, HubOptions};
    /// let options = HubOptions::open().authorizer(|subject, access, _scope| match access {
    ///     Access::Read => true,
    ///     Access::Write => subject != "guest",
    ///     // Bringing back what the hub has lost, unjudged.
    ///     _ => subject == "operator",
    /// });
    /// ```
    #[must_use]
    pub fn authorizer(mut self, allows: impl Fn(&str, Access, &str) -> bool + Send + Sync + 'static) -> Self {
        self.authorizer = Some(Arc::new(By(allows)));
        self
    }

    /// Asks this about every edit before it is accepted. Its author gets a refused edit back with the reason, and shows
    /// what the hub has.
    ///
    /// ```
    /// use rivus::{HubOptions, Refusal, Value};
    /// let options = HubOptions::open().validator(|_subject, edit| {
    ///     for task in edit.entities().iter().filter(|entity| entity.kind == "task") {
    ///         if task.field("title") == Some(&Value::from("")) {
    ///             return Err(Refusal::of_field(task, "title", "a task needs a title"));
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// ```
    #[must_use]
    pub fn validator(
        mut self,
        validate: impl Fn(&str, &Proposed<'_>) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.validator = Some(Arc::new(By(validate)));
        self
    }

    /// Takes no more than this of anybody. Devices are told, and set aside themselves what would be refused.
    ///
    /// ```
    /// use rivus::{HubOptions, Limits};
    /// let limits = Limits { value_bytes_max: 64 << 10, registers_per_second: Some(1000), ..Limits::default() };
    /// let options = HubOptions::open().limits(limits);
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets these bring back, unjudged, what the hub has lost, with authors and ranks as they come. For the time after a
    /// backup was put in place: whoever may do this can write as anybody, past limits and validator. An authorizer must
    /// allow it as well.
    ///
    /// Without this an authorizer decides by itself; where there is none either, everybody may if no token is needed or
    /// granted and nothing looks at edits, and else nobody.
    ///
    /// ```
    /// use rivus::{HubOptions, Restore};
    /// let options = HubOptions::closed().grant_as("ann", "secret", 5).restore(Restore::subjects(["ann"]));
    /// ```
    #[must_use]
    pub fn restore(mut self, restore: Restore) -> Self {
        self.restore = Some(restore);
        self
    }

    /// Lets pages of this origin, such as `https://app.example.org`, connect from browsers. Without it a request that
    /// bears an origin is refused: a browser lets any page talk to any address, also to a hub on the user's own machine.
    ///
    /// ```
    /// use rivus::HubOptions;
    /// let options = HubOptions::open().allow_origin("https://app.example.org");
    /// ```
    #[must_use]
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Who may bring back what the hub has lost; `None` if that is the authorizer's to say.
    fn who_restores(&self) -> Option<Restore> {
        #[cfg(feature = "jwt")]
        let has_tokens = self.has_tokens || self.jwt.is_some();
        #[cfg(not(feature = "jwt"))]
        let has_tokens = self.has_tokens;
        let is_guarded = has_tokens || self.authenticator.is_some() || self.validator.is_some();
        let usual = || if is_guarded { Restore::Nobody } else { Restore::Everybody };
        self.restore.clone().or_else(|| self.authorizer.is_none().then(usual))
    }

    /// What is asked of those who connect.
    pub(crate) fn gate(&self) -> Gate {
        let mut gate = Gate::new(self.grants.clone()).limits(self.limits);
        #[cfg(feature = "jwt")]
        if let Some(jwt) = &self.jwt {
            gate = gate.authenticator(Arc::new(Signed { grants: self.grants.clone(), jwt: Arc::clone(jwt) }));
        }
        if let Some(authenticator) = &self.authenticator {
            gate = gate.authenticator(Arc::clone(authenticator));
        }
        if let Some(restore) = self.who_restores() {
            gate = gate.restore(restore);
        }
        if let Some(authorizer) = &self.authorizer {
            gate = gate.authorizer(Arc::clone(authorizer));
        }
        if let Some(validator) = &self.validator {
            gate = gate.validator(Arc::clone(validator));
        }
        gate
    }

    /// Serves as one among equals instead of as the authority: edits are not judged, each side keeps its own.
    #[must_use]
    pub fn as_peer(mut self) -> Self {
        self.peer = true;
        self
    }

    /// Holds at most so many connections; more are turned away with BUSY. Without this 1,024.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// Bounds what one address (of IPv6, one network of 64 bits) may have: so many connections at once, so many new
    /// ones a second in the long run, and so many at once after a quiet time. More are turned away, with BUSY or RATE.
    ///
    /// Without this it is 256, 16 and 256, and addresses of this machine have no bound: a proxy there stands for many.
    #[must_use]
    pub fn address_max(mut self, connections: usize, per_second: u32, burst: u32) -> Self {
        self.bounds = Bounds { connections_max: connections, per_second, burst, loopback: true };
        self
    }

    /// Speaks TLS, with this certificate (the chain, the hub's own first) and private key, both in PEM.
    ///
    /// # Errors
    /// [`SyncError::BadCertificate`] if they cannot be used, or do not belong together.
    ///
    /// ```no_run
    /// # use rivus::HubOptions;
    /// let (certificate, key) = (std::fs::read("hub.pem")?, std::fs::read("hub-key.pem")?);
    /// let options = HubOptions::closed().grant("secret", 0).tls(&certificate, &key)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls(mut self, certificate: &[u8], key: &[u8]) -> Result<Self, SyncError> {
        self.certificate = Some(Arc::new(Certificate::from_pem(certificate, key)?));
        Ok(self)
    }

    /// Speaks TLS, with the certificate and the private key in these files, which are read again when they change.
    ///
    /// # Errors
    /// [`SyncError::BadCertificate`] if they cannot be read or used, or do not belong together.
    ///
    /// ```no_run
    /// # use rivus::HubOptions;
    /// let options = HubOptions::closed().tls_files("hub.pem", "hub-key.pem")?;
    /// # Ok::<(), rivus::SyncError>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls_files(
        mut self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, SyncError> {
        self.certificate = Some(Arc::new(Certificate::from_files(certificate.as_ref(), key.as_ref())?));
        Ok(self)
    }

    /// Answers `/health/live`, `/health/ready` and `/metrics` over HTTP at this address, which strangers must not
    /// reach: nobody is asked for a token there.
    #[must_use]
    pub fn admin(mut self, address: impl Into<String>) -> Self {
        self.admin = Some(address.into());
        self
    }

    /// Is not ready while fewer bytes than these are free where its file is. Without this 64 MiB.
    #[must_use]
    pub fn disk_free_min(mut self, bytes: u64) -> Self {
        self.disk_free_min = bytes;
        self
    }

    /// At its end, waits for its clients no longer than this. Without this 10 s.
    #[must_use]
    pub fn drain_max(mut self, time: Duration) -> Self {
        self.drain_max = time;
        self
    }

    /// Gives those who connect so long to become a WebSocket, and as long again to say hello. Without this 10 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use rivus::HubOptions;
    /// let options = HubOptions::open().handshake_max(Duration::from_secs(30));
    /// ```
    #[must_use]
    pub fn handshake_max(mut self, time: Duration) -> Self {
        self.handshake_max = time;
        self
    }

    /// Waits so long for a database that was connected, from its last sign of life on, before it forgets what that would
    /// have to be told. Without this 90 days. One that comes back later, and has missed something, reads everything again
    /// and loses no edit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use rivus::HubOptions;
    /// let options = HubOptions::open().lease(Duration::from_secs(30 * 24 * 3600));
    /// ```
    #[must_use]
    pub fn lease(mut self, time: Duration) -> Self {
        self.collecting.lease = time;
        self
    }

    /// Forgets what is deleted for everybody this often, never if it is `None`. Without this once a day. See
    /// [`Db::collect`](crate::Db::collect).
    ///
    /// ```
    /// use rivus::HubOptions;
    /// let options = HubOptions::open().collect_every(None);
    /// ```
    #[must_use]
    pub fn collect_every(mut self, time: Option<Duration>) -> Self {
        self.collecting.every = time;
        self
    }

    /// Keeps what was deleted for at least so long. Without this 30 days. A backup that is older brings back what was
    /// forgotten since it was made.
    ///
    /// ```
    /// use std::time::Duration;
    /// use rivus::HubOptions;
    /// let options = HubOptions::open().grace(Duration::from_secs(7 * 24 * 3600));
    /// ```
    #[must_use]
    pub fn grace(mut self, time: Duration) -> Self {
        self.collecting.grace = time;
        self
    }

    pub(super) fn scheme(&self) -> &'static str {
        #[cfg(feature = "tls")]
        if self.certificate.is_some() {
            return "wss";
        }
        "ws"
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens are secrets.
        f.debug_struct("HubOptions").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// How many connections a hub holds at once, unless told otherwise.
const CONNECTIONS_MAX: usize = 1024;
/// How many connections one address has at once, unless told otherwise: an office behind one address.
const ADDRESS_CONNECTIONS_MAX: usize = 256;
/// How many connections one address makes in a second, in the long run.
const ACCEPTS_PER_SECOND: u32 = 16;
/// How many it makes at once after a quiet time: all that it may have.
const ACCEPTS_BURST: u32 = 256;
/// How many bytes must be free on the disk. The log is cut down to as many when it starts anew.
const DISK_FREE_MIN: u64 = 64 << 20;
/// How long clients are waited for at the end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_restores_an_open_hub_that_asks_nobody_anything_and_nobody_any_other() {
        let who = |options: HubOptions| options.who_restores();
        let (nobody, everybody) = (Some(Restore::Nobody), Some(Restore::Everybody));
        assert_eq!(who(HubOptions::open()), everybody);
        let limits = Limits { value_bytes_max: 100, ..Limits::default() };
        assert_eq!(who(HubOptions::open().limits(limits)), everybody);
        assert_eq!(who(HubOptions::open().grant("secret", 0)), nobody);
        assert_eq!(who(HubOptions::open().grant_with("secret", Grant::default())), nobody);
        assert_eq!(who(HubOptions::closed().grant_as("ann", "secret", 0).anonymous(0)), nobody);
        assert_eq!(who(HubOptions::open().validator(|_, _| Ok(()))), nobody);
        let ann = Restore::subjects(["ann"]);
        let guarded = HubOptions::closed().grant_as("ann", "secret", 0).validator(|_, _| Ok(()));
        assert_eq!(who(guarded.restore(ann.clone())), Some(ann));
        assert_eq!(who(HubOptions::open().grant("secret", 0).authorizer(|_, _, _| true)), None);
        assert_eq!(who(HubOptions::open().authorizer(|_, _, _| true).restore(Restore::Nobody)), nobody);
    }

    #[cfg(feature = "jwt")]
    #[test]
    fn nobody_restores_where_tokens_are_signed() {
        let keys = include_str!("../jwt/vectors.jwks.json");
        let options = HubOptions::open().jwt(Jwt::from_jwks(keys).unwrap());
        assert_eq!(options.who_restores(), Some(Restore::Nobody));
    }
}
