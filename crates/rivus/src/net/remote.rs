//! Where another store is, and what grants access to it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use rivus_core::session::{Role, Session, SessionOptions, Want};
use rivus_core::wire::capability;
use tokio::time::timeout;

use super::SyncError;
use super::scopes::Wanted;
use crate::machine::seeds;

/// Where another store is, and what grants access to it.
///
/// ```
/// use rivus::Remote;
/// let remote = Remote::new("ws://127.0.0.1:7171").token("secret");
/// assert_eq!(remote.url(), "ws://127.0.0.1:7171");
/// ```
#[derive(Clone)]
pub struct Remote {
    url: String,
    /// Clones share what a source gave.
    token: Arc<Mutex<Option<String>>>,
    source: Option<Source>,
    asking: Arc<tokio::sync::Mutex<()>>,
    ca: Option<Arc<[u8]>>,
    /// What is followed by name; everything if there is none.
    scopes: Option<Wanted>,
}

/// How long a source of tokens may take.
const TOKEN_MAX: std::time::Duration = std::time::Duration::from_secs(30);

type Source = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

impl Remote {
    /// The store at `url`, for example `wss://example.org:7171`, or `ws://127.0.0.1:7171` without encryption.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: Arc::default(),
            source: None,
            asking: Arc::default(),
            ca: None,
            scopes: None,
        }
    }

    /// Shows this token to the other side. It goes in the first frame, never in the address.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Arc::new(Mutex::new(Some(token.into())));
        self
    }

    /// Asks here for a token: before the first connection if none was given, and whenever the other side says that the
    /// one it was shown is not good, or no longer. A token from here is tried once; if it is not good either, the sync
    /// stops. What the source says when it fails is told as [`SyncError::Token`], and it is asked again later.
    ///
    /// ```
    /// use rivus::Remote;
    /// let remote = Remote::new("ws://127.0.0.1:7171").token_source(|| async { Ok("fresh".to_owned()) });
    /// ```
    #[must_use]
    pub fn token_source<F, T>(mut self, source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.source = Some(Arc::new(move || Box::pin(source())));
        self
    }

    /// Trusts, for `wss://`, hubs whose certificate was signed by one of these authorities, in PEM, and no others.
    /// Without it the public ones are trusted, as in browsers.
    ///
    /// ```no_run
    /// use rivus::Remote;
    /// let remote = Remote::new("wss://hub.internal:7171").ca(std::fs::read("ca.pem")?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into().into());
        self
    }

    /// Follows these scopes, at most 64, and not everything; the scope without a name is empty. Only a hub that judges
    /// edits has scopes.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// let schema = || Schema::builder().kind("note", |k| k.value("list").scope("list").value("text")).build();
    /// let (phone, hub) = (Db::memory(schema()?)?, Db::memory(schema()?)?);
    /// let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// hub.put("note", "n1", [("list", "home".into()), ("text", "milk".into())])?;
    /// hub.put("note", "n2", [("list", "work".into()), ("text", "stamps".into())])?;
    /// let home = rivus::Remote::new(served.url()).scopes(["home"]);
    /// phone.sync(&home).await?;
    /// assert!(phone.view("note", "n1")?.is_some());
    /// assert!(phone.view("note", "n2")?.is_none());
    /// // To move an entity is to write its scope field. It leaves where it is not followed; nothing is deleted.
    /// phone.put("note", "n1", [("list", "work".into())])?;
    /// phone.sync(&home).await?;
    /// assert!(phone.view("note", "n1")?.is_none());
    /// assert!(hub.view("note", "n1")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.scopes = Some(scopes.into_iter().map(|scope| (scope.into(), 0)).collect());
        self
    }

    /// Follows one scope more by name, to be read before those of lower priority; see
    /// [`Connection::set_priority`](crate::Connection::set_priority).
    ///
    /// ```
    /// use rivus::Remote;
    ///
    /// let remote = Remote::new("wss://example.org").scopes(["today"]).scope("archive", -1);
    /// ```
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>, priority: i8) -> Self {
        self.scopes.get_or_insert_default().insert(scope.into(), priority);
        self
    }

    pub(super) fn scopes_wanted(&self) -> Option<Wanted> {
        self.scopes.clone()
    }

    #[cfg(feature = "tls")]
    pub(super) fn trusted(&self) -> Option<&[u8]> {
        self.ca.as_deref()
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a token must be had before anybody is asked.
    pub(super) fn lacks_token(&self) -> bool {
        self.source.is_some() && self.shown().is_none()
    }

    pub(super) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// Has a fresh token of the source. Of several that ask at once one does, for all.
    pub(super) async fn refresh(&self) -> Result<(), SyncError> {
        let Some(source) = &self.source else { return Ok(()) };
        let before = self.shown();
        let _asking = self.asking.lock().await;
        if self.shown() != before {
            return Ok(());
        }
        let token = match timeout(TOKEN_MAX, source()).await {
            Ok(token) => token.map_err(|reason| SyncError::Token { reason })?,
            Err(_) => {
                let reason = format!("nothing came from it for {} s", TOKEN_MAX.as_secs());
                return Err(SyncError::Token { reason });
            }
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    pub(super) fn shown(&self) -> Option<String> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What makes two remotes one: who asks where.
    pub(super) fn key(&self) -> String {
        let who = match &self.source {
            Some(source) => format!("{:p}", Arc::as_ptr(source)),
            None => self.shown().unwrap_or_default(),
        };
        format!("{}\n{who}", self.place())
    }

    /// What makes two remotes one, whoever asks: where, and of what.
    pub(super) fn place(&self) -> String {
        let scopes = self.scopes.iter().flatten().map(|(scope, _)| format!("\n{}:{scope}", scope.len()));
        let named = if self.scopes.is_some() { "\nby name" } else { "" };
        format!("{}{named}{}", self.url, scopes.collect::<String>())
    }

    /// A session that follows these scopes, or everything.
    pub(super) fn session(&self, want: Want, scopes: Option<Wanted>) -> Result<Session, SyncError> {
        let mut session = Session::new(SessionOptions {
            role: Role::Client { token: self.shown() },
            want,
            offers: true,
            seeds: seeds(),
            capabilities: capability::ZSTD,
        });
        if let Some(scopes) = scopes {
            session.follow_scopes(scopes.keys().cloned())?;
            scopes.iter().for_each(|(scope, priority)| session.set_priority(scope, *priority));
        }
        Ok(session)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        f.debug_struct("Remote").field("url", &self.url).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl From<String> for Remote {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

impl From<&str> for Remote {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}
