//! What an application wants of a session while it runs: levers, guards, entities, scopes, its end.

use rivus_core::replica::Replica;
use rivus_core::session::{Session, SessionError, SessionEvent};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::lend::Work;
use super::{Ended, Host, Pump};
use crate::evict::Fetched;
use crate::net::fetch::Asks;
use crate::net::levers::Gate;
use crate::net::renewal::Renewal;
use crate::net::scopes::{Change, To};
use crate::net::{QUIET, SyncError};

impl<H: Host> Pump<H> {
    /// Does what the application has set, and ends the session where it has gone as far as it may.
    pub(super) fn obey(&mut self) {
        let Some(gate) = &mut self.gate else { return };
        let (holds, batch, shut, spent) = (gate.holds(), gate.batch_edits(), gate.is_shut(), gate.is_spent());
        if let Some(session) = &mut self.session {
            session.hold_pushes(holds);
            session.set_push_edits_max(batch);
        }
        let pulled = &self.report.pulled;
        let reached = |most: Option<u64>, now: u64| most.is_some_and(|most| now >= most);
        let full = self.bounds.registers.is_some_and(|most| pulled.received >= most)
            || reached(self.bounds.until, pulled.position);
        if shut {
            self.stop(Ended::Shut);
        } else if pulled.more && full {
            self.stop(Ended::Bounded);
        } else if spent {
            self.stop(Ended::Spent);
        }
    }

    pub(super) fn spend(&self, bytes: usize) {
        if let Some(gate) = &self.gate {
            gate.spend(bytes as u64);
        }
    }

    /// Lets the session fetch what is asked for next, if nothing is under way.
    pub(super) fn ask(&mut self, asks: &Asks) {
        if self.asked.is_none()
            && let Some(session) = &mut self.session
            && let Some(ask) = asks.next()
        {
            session.fetch(ask.entities.iter().cloned());
            self.asked = Some(ask);
        }
    }

    /// Asks once more for scopes that were denied a while ago, if they are wanted still.
    pub(super) fn ask_again(&mut self, asks: &Asks) {
        while self.denied.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            if let Some((_, scope)) = self.denied.pop_front() {
                asks.follow_again(&scope);
            }
        }
    }

    /// Has the session follow what is wanted since it began.
    pub(super) async fn follow(&mut self, asks: &Asks) -> Result<(), SyncError> {
        while let Some(Change { scope, to }) = asks.next_change() {
            let change = move |session: &mut Session, replica: &mut Replica<H::Store>, _, ()| match to {
                To::Again => {
                    let _ = session.subscribe(&scope);
                    Ok(())
                }
                To::Follow => session.subscribe(&scope).map_err(SyncError::from),
                To::Unfollow(kept) => session
                    .unsubscribe(replica, &scope, kept)
                    .map_err(|error| SessionError::from(error).into()),
                To::Priority(priority) => {
                    session.set_priority(&scope, priority);
                    Ok(())
                }
            };
            self.blocking(Work::UNKNOWN, (|| Ok(()), |done| done), change).await??;
        }
        Ok(())
    }

    /// Tells who asked what came of it.
    pub(super) fn answer(&mut self, event: &SessionEvent) {
        let answer = match event {
            SessionEvent::Fetched { entities, registers, missing } => {
                Ok(Fetched { entities: *entities, registers: *registers, missing: missing.clone() })
            }
            SessionEvent::CannotFetch => Err(SyncError::CannotFetch),
            _ => return,
        };
        if let Some(ask) = self.asked.take() {
            // Whoever asked may have gone meanwhile.
            let _ = ask.answer.send(answer);
        }
    }
}

pub(super) async fn changed(gate: &mut Option<Gate>) {
    match gate {
        Some(gate) => gate.changed().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn fresh(renewal: &mut Option<Renewal>) -> String {
    match renewal {
        Some(renewal) => renewal.fresh().await,
        None => std::future::pending().await,
    }
}

/// Waits until the flag is raised; for ever if nobody can raise it any more.
pub(crate) async fn told_to(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|raised| *raised).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until a frame that is being sent has to be given up: a while after somebody wants the session no more.
pub(super) async fn given_up(gate: Option<&Gate>, stop: &watch::Receiver<bool>) -> Ended {
    let mut stop = stop.clone();
    let shut = async {
        match gate {
            Some(gate) => gate.shut().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        () = shut => Ended::Shut,
        () = told_to(&mut stop) => Ended::Stopped,
    };
    sleep(QUIET).await;
    ended
}
