//! What a connection may do while it lasts: the grant and its end, another token, rights, limits and rate.
//!
//! Owns AUTH. Who may do what is asked of the [`Gate`]; what the other side takes was told in WELCOME.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::answer::Asked;
use super::rate::{Pace, cost};
use super::{
    Access, Denial, Gate, Grant, Limits, Phase, Rights, Role, Session, SessionError, SessionEvent, unexpected,
};
use crate::clock::Millis;
use crate::code::Code;
use crate::id::{ReplicaId, StoreId};
use crate::replica::{OwnError, Replica};
use crate::store::Store;
use crate::wire::{Auth, Bounds, Frame, tag};

/// What the grant of this connection is worth, and for how long.
#[derive(Clone, Debug, Default)]
pub(super) struct Granted {
    /// Who the other side is, at the server's.
    subject: String,
    /// Which scopes the grant is for.
    rights: Arc<Rights>,
    /// Under which name it pays for what it sends.
    payer: String,
    /// From where it connects, if that is known.
    pub(super) network: String,
    /// When the grant ends, by this side's clock.
    ends: Option<Millis>,
    /// What the other side takes, at the client's.
    limits: Limits,
    /// How fast it may be sent, at the client's.
    pub(super) pace: Pace,
    /// How long this side waits before it sends more, in ms.
    pub(super) paused_ms: Option<u64>,
    /// A token that is to be shown.
    due: Option<String>,
}

impl Session {
    /// Shows another token on this connection, as soon as it is open: the grant of the first one may be about to end. The
    /// answer is [`SessionEvent::Refreshed`], or the connection ends. Connecting again with it is up to the shell.
    pub fn refresh_token(&mut self, token: impl Into<String>) {
        let token = token.into();
        let Role::Client { token: shown } = &mut self.options.role else { return };
        *shown = Some(token.clone());
        // HELLO shows it anyway.
        if self.phase != Phase::Start {
            self.granted.due = Some(token);
        }
    }

    /// When the grant of this connection ends, by this side's clock, if it does. Another token is to be shown before.
    #[must_use]
    pub fn grant_ends(&self) -> Option<Millis> {
        self.granted.ends
    }

    /// What the other side takes, as it has told.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.granted.limits
    }

    /// What this side asks before it lets the other do anything.
    pub(super) fn gate(&self) -> Option<&Arc<Gate>> {
        match &self.options.role {
            Role::Server { gate } => Some(gate),
            Role::Client { .. } => None,
        }
    }

    /// Lets in who says hello with this token.
    pub(super) fn admit(&mut self, token: Option<&str>, now: Millis) -> Result<Grant, SessionError> {
        let gate = self.gate().cloned().ok_or_else(|| unexpected("HELLO to a client"))?;
        let grant = gate.admit(token, now)?;
        let (subject, network) = (grant.subject.clone(), std::mem::take(&mut self.granted.network));
        // Whoever has no name may call its store anything, as often as it wants.
        let payer = if subject.is_empty() { format!("\0{network}") } else { subject.clone() };
        let rights = Arc::new(grant.rights.clone());
        self.granted = Granted { subject, rights, payer, network, ends: grant.expires, ..Granted::default() };
        self.charge(1, now)?;
        Ok(grant)
    }

    /// Makes the ids of a greeting those of who shows them. An authority's business: among peers nobody judges.
    pub(super) fn own<S: Store>(
        &self,
        replica: &mut Replica<S>,
        store: StoreId,
        replicas: &[ReplicaId],
    ) -> Result<(), SessionError> {
        let identity = replica.identity();
        // That is this side itself, or a copy of it, which is told so.
        if !identity.is_authority || identity.store == store {
            return Ok(());
        }
        let replicas: BTreeSet<ReplicaId> = replicas.iter().copied().collect();
        let replicas: Vec<ReplicaId> = replicas.into_iter().collect();
        replica.own(&self.granted.subject, store, &replicas).map_err(|error| match error {
            OwnError::Commit(error) => SessionError::Commit(error),
            foreign => SessionError::Refused { code: Code::OWNER, message: foreign.to_string() },
        })
    }

    /// Who the other side is to the gate, to ask it of edits while the session is at work on them.
    pub(super) fn asked(&self, gate: Arc<Gate>) -> Asked {
        Asked { gate, subject: self.granted.subject.clone(), rights: Arc::clone(&self.granted.rights) }
    }

    /// Whether the other side may do this in a scope now.
    pub(super) fn allows(&self, access: Access, scope: &str) -> bool {
        let Granted { subject, rights, .. } = &self.granted;
        self.gate().is_none_or(|gate| rights.allows(access, scope) && gate.allows(subject, access, scope))
    }

    /// Whether what the other side may do differs by scope.
    pub(super) fn is_asking(&self) -> bool {
        self.gate().is_some_and(|gate| gate.is_asking() || !self.granted.rights.is_everything())
    }

    /// Whether the other side may be told what the subscription in hand is of.
    pub(super) fn may_read<S: Store>(&self, replica: &Replica<S>) -> Result<bool, SessionError> {
        match &self.scope {
            Some(scope) if self.is_asking() => Ok(self.allows(Access::Read, scope)),
            Some(_) => Ok(true),
            None => self.reads_all(replica),
        }
    }

    /// Whether the other side may read every scope.
    pub(super) fn reads_all<S: Store>(&self, replica: &Replica<S>) -> Result<bool, SessionError> {
        let reads = |scope: &str| self.allows(Access::Read, scope);
        Ok(!self.is_asking() || reads("") && replica.scopes()?.iter().all(|(scope, _)| reads(scope)))
    }

    /// Whether the other side may read anything at all.
    pub(super) fn reads_anything<S: Store>(&self, replica: &Replica<S>) -> Result<bool, SessionError> {
        if !self.is_asking() || self.allows(Access::Read, "") {
            return Ok(true);
        }
        Ok(replica.scopes()?.iter().any(|(scope, _)| self.allows(Access::Read, scope)))
    }

    /// Ends a connection whose grant has ended.
    pub(super) fn check_grant(&self, now: Millis) -> Result<(), SessionError> {
        if self.gate().is_some() && self.granted.ends.is_some_and(|ends| ends <= now) {
            let Denial { code, message } = Denial::expired("the token has expired: show a fresh one");
            return Err(SessionError::Refused { code, message });
        }
        Ok(())
    }

    /// What a received frame costs and whether it may be that long, before anything of it is looked at.
    pub(super) fn check_frame(&self, bytes: &[u8], now: Millis) -> Result<(), SessionError> {
        let Some(gate) = self.gate().filter(|_| self.phase == Phase::Open) else { return Ok(()) };
        let first = bytes.first().copied();
        let most = gate.bounds().frame_bytes_max;
        if bytes.len() > most && first != Some(tag::SCHEMA) {
            let message = format!("a frame of {} bytes: at most {most} are taken", bytes.len());
            return Err(SessionError::Refused { code: Code::TOO_LARGE, message });
        }
        // Who has run out of time may still show another token.
        if first != Some(tag::AUTH) {
            self.check_grant(now)?;
        }
        // What brings back what was lost is paid for afterwards: cut short, it would have to begin again.
        if self.reading.is_upload() && first == Some(tag::DELTA) {
            return Ok(());
        }
        self.charge(cost(bytes.len()), now)
    }

    /// Takes what registers cost.
    ///
    /// # Errors
    /// [`SessionError::Rate`] if the other side is not in credit; nothing was taken.
    pub(super) fn charge(&self, registers: usize, now: Millis) -> Result<(), SessionError> {
        let Some(gate) = self.gate() else { return Ok(()) };
        gate.charge(&self.granted.payer, registers, now)
            .map_err(|retry_after_ms| SessionError::Rate { retry_after_ms })
    }

    /// Takes what registers cost, in credit or not.
    pub(super) fn debit(&self, registers: usize, now: Millis) {
        if let Some(gate) = self.gate() {
            gate.debit(&self.granted.payer, registers, now);
        }
    }

    /// After how many ms this side goes on sending, if it waits so that it is not told to: the server takes only so much in
    /// a second. As of the last [`Session::poll_transmit`].
    #[must_use]
    pub fn paused_ms(&self) -> Option<u64> {
        self.granted.paused_ms
    }

    /// Whether nothing should be sent now.
    pub(super) fn is_paused(&mut self, now: Millis) -> bool {
        // What is brought back is paid for afterwards.
        let uploads = self.pushing.is_none() && self.writing.is_some();
        self.granted.paused_ms = self.granted.pace.wait_ms(now).filter(|_| !uploads);
        self.granted.paused_ms.is_some()
    }

    /// The frame that shows another token, if one is due.
    pub(super) fn next_auth(&mut self) -> Option<Vec<u8>> {
        let token = self.granted.due.take()?;
        Some(Frame::Auth(Auth { token: Some(token), ..Auth::default() }).encode())
    }

    pub(super) fn handle_auth<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        auth: Auth,
        now: Millis,
    ) -> Result<(), SessionError> {
        let Some(gate) = self.gate().cloned() else { return self.hear_grant(replica, &auth, now) };
        let Some(token) = auth.token else { return Err(unexpected("AUTH without a token")) };
        let grant = gate.admit(Some(&token), now)?;
        if grant.subject != self.granted.subject {
            let message = "the token is somebody else's: connect again with it".to_owned();
            return Err(SessionError::Refused { code: Code::UNAUTHORISED, message });
        }
        self.granted.ends = grant.expires;
        self.granted.rights = Arc::new(grant.rights.clone());
        let peer = self.peer.as_mut().ok_or_else(|| unexpected("AUTH before the greeting"))?;
        peer.rank = grant.rank;
        let expires_in_ms = left(&grant, now);
        self.send(&Frame::Auth(Auth { token: None, rank: Some(grant.rank), expires_in_ms }));
        Ok(())
    }

    /// The client's side of AUTH.
    fn hear_grant<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        auth: &Auth,
        now: Millis,
    ) -> Result<(), SessionError> {
        let rank = auth.rank.ok_or_else(|| unexpected("AUTH that grants nothing"))?;
        self.hear_end(auth.expires_in_ms, now);
        let peer = self.peer.as_mut().ok_or_else(|| unexpected("AUTH before the greeting"))?;
        peer.rank = rank;
        if peer.is_authority {
            replica.meet_authority(peer.store, rank)?;
        }
        self.events.push_back(SessionEvent::Refreshed { rank });
        Ok(())
    }

    /// Takes over when the grant ends. Clocks differ, so it is told as time that is left.
    pub(super) fn hear_end(&mut self, expires_in_ms: Option<u64>, now: Millis) {
        let left = expires_in_ms.map(|left| i64::try_from(left).unwrap_or(i64::MAX));
        self.granted.ends = left.map(|left| Millis(now.0.saturating_add(left)));
    }

    /// Takes over what the server takes.
    pub(super) fn hear_bounds(&mut self, told: Option<Bounds>, now: Millis) {
        let limits = Limits::told(told.unwrap_or_default());
        self.granted.limits = limits;
        self.granted.pace = Pace::told(limits.registers_per_second, now);
    }
}

/// How long a grant still holds, in ms.
pub(super) fn left(grant: &Grant, now: Millis) -> Option<u64> {
    grant.expires.map(|ends| u64::try_from(ends.0.saturating_sub(now.0)).unwrap_or(0))
}
