//! A fresh token on a connection that stays, before the grant of the last one ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rivus_core::clock::Millis;
use tokio::time::{Instant, sleep_until};

use super::{Remote, SyncError};
use crate::shared::Shared;

/// Asks the source again after so long if it failed.
const RETRY: Duration = Duration::from_secs(5);

/// Shows fresh tokens of a source.
pub(super) struct Renewal {
    remote: Remote,
    shared: Arc<Shared>,
    /// When the grant ends, as the session says.
    ends: Option<Millis>,
    /// When the source is asked.
    at: Option<Instant>,
    asking: Option<Asking>,
}

type Asking = Pin<Box<dyn Future<Output = Result<(), SyncError>> + Send>>;

impl Renewal {
    /// `None` if there is nobody to ask.
    pub(super) fn new(remote: &Remote, shared: &Arc<Shared>) -> Option<Self> {
        let renewal = || Self {
            remote: remote.clone(),
            shared: Arc::clone(shared),
            ends: None,
            at: None,
            asking: None,
        };
        remote.has_source().then(renewal)
    }

    /// Plans for the grant that there is now: the last fifth of its time is left for asking.
    pub(super) fn plan(&mut self, ends: Option<Millis>) {
        if ends != self.ends {
            self.ends = ends;
            let left = ends.map(|ends| ends.0.saturating_sub(self.shared.clock.now().0));
            let left = left.map(|left| Duration::from_millis(u64::try_from(left).unwrap_or(0)));
            self.at = left.and_then(|left| Instant::now().checked_add(left.mul_f32(0.8)));
        }
    }

    /// Waits for the next token. Whoever stops waiting goes on later where this was.
    pub(super) async fn fresh(&mut self) -> String {
        loop {
            if let Some(asking) = &mut self.asking {
                let asked = asking.await;
                self.asking = None;
                match (asked, self.remote.shown()) {
                    (Ok(()), Some(token)) => return token,
                    (Err(error), _) => {
                        tracing::warn!(url = self.remote.url(), %error, "no fresh token yet");
                        self.at = Instant::now().checked_add(RETRY);
                    }
                    (Ok(()), None) => {}
                }
            }
            match self.at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
            self.at = None;
            let remote = self.remote.clone();
            self.asking = Some(Box::pin(async move { remote.refresh().await }));
        }
    }
}
