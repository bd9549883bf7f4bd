//! Who judges edits: this store, another one, or nobody.

use super::{Replica, commit_records, newest};
use crate::clock::{Admission, Millis};
use crate::id::StoreId;
use crate::identity::Authority;
use crate::store::{Store, StoreError};

impl<S: Store> Replica<S> {
    /// Makes this store the judge of all edits that are pushed to it.
    ///
    /// # Errors
    /// [`RoleError`]; nothing has changed.
    pub fn become_authority(&mut self) -> Result<(), RoleError> {
        self.refresh()?;
        if let Some(authority) = self.identity.authority {
            return Err(RoleError::HasAuthority { store: authority.store });
        }
        if self.identity.is_authority {
            return Ok(());
        }
        let records = newest::newest_of_all(&self.store)?;
        commit_records(&mut self.store, records)?;
        self.swap_identity(|identity| identity.is_authority = true)?;
        Ok(())
    }

    /// As [`Replica::become_authority`], and from now on refuses stamps from the future instead of setting them
    /// aside: an authority answers each edit.
    ///
    /// # Errors
    /// [`RoleError`]; nothing has changed.
    pub fn serve_as_authority(&mut self) -> Result<(), RoleError> {
        self.become_authority()?;
        if let Admission::Quarantine { drift_ms_max } = self.admission {
            self.admission = Admission::Refuse { drift_ms_max };
        }
        Ok(())
    }

    /// Notes what the authority granted: from the first time on, this store's edits are pending until judged.
    ///
    /// # Errors
    /// [`RoleError`] if the store has another authority or is one itself; nothing has changed.
    pub fn meet_authority(&mut self, store: StoreId, rank: u8) -> Result<(), RoleError> {
        self.refresh()?;
        if self.identity.is_authority {
            return Err(RoleError::IsAuthority);
        }
        let before = self.identity.authority;
        if let Some(known) = before
            && known.store != store
        {
            return Err(RoleError::OtherAuthority { known: known.store, met: store });
        }
        let fresh =
            Authority { store, met: false, rank, acked: 0, correction_ms: 0, restamped: 0, unheard: false };
        let after = Authority { rank, ..before.unwrap_or(fresh) };
        self.swap_identity(|identity| identity.authority = Some(after))?;
        self.refresh_saw()?;
        Ok(())
    }

    /// Notes what the authority's clock reads at this machine's `now`.
    pub fn hear_clock(&mut self, now: Millis, authority: Millis) {
        self.ahead_ms = authority.0.saturating_sub(now.0);
    }

    /// The latest time that an honest stamp can bear while the authority's clock reads this.
    pub(super) fn believable(&self, authority: Millis) -> u64 {
        let default = Admission::Quarantine { drift_ms_max: crate::clock::DRIFT_DEFAULT_MS };
        self.admission.latest(authority).or(default.latest(authority)).unwrap_or(u64::MAX)
    }

    /// Changes what is noted of the authority.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn update_authority(&mut self, mut update: impl FnMut(&mut Authority)) -> Result<(), StoreError> {
        self.swap_identity(|identity| {
            if let Some(authority) = &mut identity.authority {
                update(authority);
            }
        })?;
        self.clock.correct(self.identity.authority.map_or(0, |a| a.correction_ms));
        Ok(())
    }
}

/// Why a store cannot take a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// A store that has an authority cannot become one.
    #[error("this store belongs to the authority {store}: serve another store, or export and import it")]
    HasAuthority {
        /// The authority.
        store: StoreId,
    },
    /// An authority cannot have one.
    #[error("this store is an authority itself: sync from a store that is not served")]
    IsAuthority,
    /// The store remembers another authority.
    #[error("this store belongs to the authority {known}, not to {met}: connect to its own hub")]
    OtherAuthority {
        /// The one that it remembers.
        known: StoreId,
        /// The one that was met.
        met: StoreId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
