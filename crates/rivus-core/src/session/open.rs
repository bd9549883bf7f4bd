//! The greeting: who the two are, whether they belong together, and who starts with what.

use super::{Known, Phase, Role, Session, SessionError, SessionEvent, Want, auth, not_authority, unexpected};
use crate::canary::{Canary, is_on};
use crate::clock::{DRIFT_DEFAULT_MS, Millis};
use crate::code::Code;
use crate::identity::{INCARNATIONS_TOLD, Position, fork, knows};
use crate::replica::{EPOCH_AHEAD_MAX, Replica, RoleError};
use crate::store::Store;
use crate::wire::{About, Frame, Hello, Policies, Reset, VERSION, Welcome, capability};

impl Session {
    pub(super) fn hello<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<Vec<u8>, SessionError> {
        let about = self.about(replica, now)?;
        let token = match &self.options.role {
            Role::Client { token } => token.clone(),
            Role::Server { .. } => None,
        };
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            capabilities: self.options.capabilities
                | capability::FETCH
                | capability::SKETCH
                | capability::LEASE,
            about,
            token,
            offers: self.options.offers,
        };
        Ok(Frame::Hello(hello).encode())
    }

    fn about<S: Store>(&mut self, replica: &mut Replica<S>, now: Millis) -> Result<About, SessionError> {
        replica.refresh()?;
        let head = replica.head()?;
        let skip = head.incarnations.len().saturating_sub(INCARNATIONS_TOLD);
        self.told = head.incarnations.iter().skip(skip).copied().collect();
        let identity = replica.identity();
        self.told_store = identity.store;
        self.others = replica.others();
        self.told_replicas = identity.all_replicas().collect();
        let fingerprint = replica.schema().fingerprint();
        let about =
            About::new(identity.store, identity.all_replicas(), &self.told, head.seq, fingerprint, now.0);
        Ok(about.with_epoch(replica.epoch_told()))
    }

    pub(super) fn handle_hello<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        hello: Hello,
        now: Millis,
    ) -> Result<(), SessionError> {
        if hello.version_min > VERSION || hello.version_max < VERSION {
            let older = if hello.version_max < VERSION { "client" } else { "server" };
            let message = format!(
                "the client speaks versions {} to {} of the protocol, the server {VERSION}: update the {older}",
                hello.version_min, hello.version_max
            );
            return Err(SessionError::Refused { code: Code::VERSION, message });
        }
        let grant = self.admit(hello.token.as_deref(), now)?;
        let (rank, expires_in_ms) = (grant.rank, auth::left(&grant, now));
        let identity = replica.identity();
        if let Some(authority) = identity.authority {
            return Err(not_authority(authority.store));
        }
        let is_authority = identity.is_authority;
        let about = self.about(replica, now)?;
        let store = hello.about.store();
        self.own(replica, store, &hello.about.replicas())?;
        let known = self.contradiction(replica, &hello.about)?;
        self.events.push_back(SessionEvent::Admitted { subject: grant.subject });
        let leases = if known.is_none() { self.tell_leases(replica, store, now)? } else { None };
        // A client that has been opened more often than a greeting can tell, or that another process has moved
        // since, looks into its own history.
        let contradicts = known.is_some();
        let welcome = Welcome {
            version: VERSION,
            capabilities: self.options.capabilities
                | capability::FETCH
                | capability::SKETCH
                | capability::LEASE,
            about,
            is_authority,
            rank,
            known,
            bounds: self.gate().and_then(|gate| gate.bounds().tell()),
            expires_in_ms,
            leases,
        };
        self.send(&Frame::Welcome(welcome));
        if contradicts && store == replica.identity().store {
            // The client takes a new id and connects again.
            self.phase = Phase::Closed;
            return Ok(());
        }
        let peer = Known {
            store,
            history: hello.about.history(),
            head: hello.about.head,
            about: hello.about,
            is_authority: false,
            rank,
            capabilities: hello.capabilities,
        };
        if !contradicts {
            let before = replica.peer(peer.store)?;
            replica.remember(peer.store, &peer.remembered(before))?;
        }
        self.opened(replica, peer, now)?;
        if !is_authority && hello.offers {
            self.reading.plan(Want::Live);
        }
        Ok(())
    }

    /// What this side knows of the client's store that the client does not.
    fn contradiction<S: Store>(
        &self,
        replica: &Replica<S>,
        about: &About,
    ) -> Result<Option<Reset>, SessionError> {
        let (store, history) = (about.store(), about.history());
        if store == replica.identity().store {
            let position = Position {
                incarnation: self.told.last().map(|(incarnation, _)| *incarnation).unwrap_or_default(),
                seq: replica.head()?.seq,
            };
            if history == self.told && about.head == position.seq {
                let message = "both ends are the same store: connect two stores; if this is a copied file, \
                               edit it once and connect again"
                    .to_owned();
                return Err(SessionError::Refused { code: Code::SAME_STORE, message });
            }
            return Ok(Some(Reset::new(position, &self.told)));
        }
        let peer = replica.peer(store)?.unwrap_or_default();
        let read = replica.cursor(store)?.unwrap_or_default().position();
        let unknown =
            [peer.position, read].into_iter().find(|position| !knows(&history, about.head, *position));
        Ok(unknown.map(|position| Reset::new(position, &peer.history)))
    }

    pub(super) fn handle_welcome<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        welcome: Welcome,
        now: Millis,
    ) -> Result<(), SessionError> {
        if welcome.version != VERSION {
            let older = if welcome.version < VERSION { "server" } else { "client" };
            let message = format!(
                "the server chose version {} of the protocol, the client offered {VERSION}: update the {older}",
                welcome.version
            );
            return Err(SessionError::Refused { code: Code::VERSION, message });
        }
        let store = welcome.about.store();
        if let Some(known) = &welcome.known {
            let head = replica.head()?;
            let same = store == self.told_store;
            let forked = same || !knows(&head.incarnations, head.seq, known.position());
            if forked && !is_on(Canary::ForkIgnored) {
                return self.start_over(replica, known, now);
            }
        }
        if replica.identity().is_authority && !welcome.is_authority {
            return Err(RoleError::IsAuthority.into());
        }
        if let Some(authority) = replica.identity().authority
            && authority.store != store
        {
            return Err(RoleError::OtherAuthority { known: authority.store, met: store }.into());
        }
        let peer = Known {
            store,
            history: welcome.about.history(),
            head: welcome.about.head,
            about: welcome.about.clone(),
            is_authority: welcome.is_authority,
            rank: welcome.rank,
            capabilities: welcome.capabilities,
        };
        self.hear_bounds(welcome.bounds, now);
        self.hear_end(welcome.expires_in_ms, now);
        self.leasing.hear(welcome.leases);
        self.check_scopes()?;
        self.opened(replica, peer, now)?;
        // Nothing binds this store to another whose schema has not been found to agree.
        if self.schema_due { Ok(()) } else { self.settle(replica, now) }
    }

    /// Goes on once the two are known to belong together.
    pub(super) fn settle<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<(), SessionError> {
        let Some(peer) = self.peer.clone().filter(|_| !self.is_server()) else { return Ok(()) };
        let store = peer.store;
        let cursor = replica.cursor(store)?;
        let told = replica.peer(store)?.unwrap_or_default();
        // Of everything, or of the scopes that are followed by name.
        let cursors: Vec<_> = cursor.into_iter().chain(replica.cursors_in(store)?.into_values()).collect();
        let read = cursors.iter().map(|c| c.position());
        // What it accepted may be further on than what was read since.
        let acked = replica.identity().authority.filter(|authority| authority.store == store);
        let acked = acked.map(|a| Position { seq: a.acked, ..told.position }).filter(|at| at.seq > peer.head);
        // A peer that was set back is another store from then on: what this one has had from it and lost the cursor to,
        // or never read, would not be sent to it again. An authority keeps its id and takes an upload.
        // Who follows no scope at the moment has no cursor that could tell.
        let follows_none = self.lanes.are_named() && cursors.is_empty();
        let before = Some(told.position).filter(|_| !peer.is_authority || follows_none);
        let mut positions = before.into_iter().chain(read).chain(acked);
        let lost = positions.find(|at| !knows(&peer.history, peer.head, *at));
        if peer.is_authority {
            self.meet(replica, &peer, now)?;
        }
        tracing::debug!(%store, head = peer.head, reset = lost.is_some(), "connected");
        if self.lanes.are_named() && !peer.is_authority {
            let message = "scopes are had by name from an authority alone: follow everything".to_owned();
            return Err(SessionError::Refused { code: Code::SCOPE, message });
        }
        if let Some(position) = lost.filter(|_| !peer.is_authority) {
            // Until the peer has heard it, what it once told stays remembered. If the position is only older than what
            // its greeting could tell, it goes on.
            self.send(&Frame::Reset(Reset::new(position, &told.history)));
            self.reading.plan(self.options.want);
            return Ok(());
        }
        if peer.is_authority && lost.is_none() {
            self.check_fence(replica, &peer, now)?;
        }
        replica.remember(store, &peer.remembered(Some(told.clone())))?;
        if !peer.is_authority {
            self.reading.plan(self.options.want);
            return Ok(());
        }
        if self.rejoins(replica)? {
            return Ok(());
        }
        // Without a cursor nothing tells whether the authority has been restored since they met.
        let met = (follows_none || !cursors.is_empty())
            && replica.identity().authority.is_some_and(|authority| authority.met);
        if !met || lost.is_some() {
            // What is evicted cannot be brought, and may be lost there or be otherwise.
            replica.forget_evicted()?;
        }
        if !is_on(Canary::NoUpload) && (!met || lost.is_some()) && replica.head()?.digest.count > 0 {
            // The authority first takes what this store has confirmed.
            replica.update_authority(|authority| {
                authority.met = false;
                authority.acked = 0;
            })?;
            let position = lost.unwrap_or_default();
            self.uploaded = true;
            self.send(&Frame::Reset(Reset::new(position, &told.history)));
            return Ok(());
        }
        let wants_all = replica.wants_all()?;
        if lost.is_some() || !met || wants_all {
            replica.forget_cursor(store)?;
        }
        if wants_all {
            self.each_slot(|session| {
                session.reading.want_everything();
                Ok(())
            })?;
        }
        self.start_pushing(replica)
    }

    /// With everything confirmed at the authority, or nothing to confirm: pushes first, then reads.
    pub(super) fn start_pushing<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        replica.update_authority(|authority| authority.met = true)?;
        self.begin_pushing(replica)?;
        self.plan_reading(self.options.want);
        Ok(())
    }

    fn meet<S: Store>(
        &self,
        replica: &mut Replica<S>,
        peer: &Known,
        now: Millis,
    ) -> Result<(), SessionError> {
        replica.meet_authority(peer.store, peer.rank)?;
        replica.hear_clock(now, Millis(peer.about.clock_ms));
        let correction = replica.clock().correction_ms();
        if correction != 0 {
            let ahead = now.0.saturating_sub(peer.about.clock_ms);
            let needed = ahead > i64::try_from(DRIFT_DEFAULT_MS).unwrap_or(i64::MAX);
            replica
                .update_authority(|a| a.correction_ms = if needed { ahead.saturating_neg() } else { 0 })?;
        }
        Ok(())
    }

    fn opened<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        peer: Known,
        now: Millis,
    ) -> Result<(), SessionError> {
        hear_epoch(replica, &peer)?;
        // What was set aside and is due by now counts as held.
        replica.release(now)?;
        if peer.about.fingerprint() != replica.schema().fingerprint() {
            self.schema_due = true;
            let policies = replica.schema().policies();
            self.send(&Frame::Schema(Policies::new(&policies)));
        }
        self.events.push_back(SessionEvent::Opened {
            peer: peer.store,
            is_authority: peer.is_authority,
            rank: peer.rank,
            capabilities: peer.capabilities,
        });
        self.peer = Some(peer);
        self.phase = Phase::Open;
        Ok(())
    }

    /// This store is a copy: it goes on as another one, from where the histories part.
    fn start_over<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        known: &Reset,
        now: Millis,
    ) -> Result<(), SessionError> {
        let head = replica.head()?;
        let at = fork(&head.incarnations, &known.history(), known.position());
        replica.start_over(now, self.options.seeds, self.told_store, at)?;
        self.events.push_back(SessionEvent::Copied);
        Err(SessionError::Copied)
    }

    pub(super) fn handle_reset<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        reset: &Reset,
        now: Millis,
    ) -> Result<(), SessionError> {
        if !self.is_server() {
            return Err(unexpected("RESET from a server"));
        }
        let head = replica.head()?;
        let position = reset.position();
        let known = position != Position::default() && knows(&head.incarnations, head.seq, position);
        if known {
            // Nothing was lost here: the client's position is older than what the greeting could tell. A peer goes on
            // by itself.
            if replica.identity().is_authority {
                self.send(&Frame::Synced { seq: 0 });
            }
            return Ok(());
        }
        if replica.identity().is_authority {
            if std::mem::replace(&mut self.uploaded, true) {
                return Err(unexpected("a second RESET on one connection"));
            }
            self.upload_from = Some(head.seq);
            self.reading.upload();
            return Ok(());
        }
        self.start_over(replica, reset, now)
    }
}

/// Takes over which version of the rules the other knows of. An authority is believed, peers within a bound.
fn hear_epoch<S: Store>(replica: &mut Replica<S>, peer: &Known) -> Result<(), SessionError> {
    let epoch = peer.about.epoch.unwrap_or(0);
    let ours = replica.identity();
    // Any device may tell an authority anything, and everybody would hear of it.
    if !peer.is_authority && (ours.is_authority || ours.authority.is_some()) {
        return Ok(());
    }
    if !peer.is_authority && !replica.believes_epoch(epoch) {
        let message = format!(
            "the other side knows of rules of version {epoch}, more than {EPOCH_AHEAD_MAX} above this program's \
             {}: give the schemas epochs that are counted up, or update this program",
            replica.schema().epoch()
        );
        return Err(SessionError::Refused { code: Code::SCHEMA, message });
    }
    Ok(replica.hear_epoch(epoch)?)
}
