//! What a session's events come to in a report.

use std::collections::BTreeMap;

use rivus_core::code::Code;
use rivus_core::session::{Answered, SessionEvent};
use rivus_core::wire::capability;

use crate::net::SyncReport;

pub(super) fn note(report: &mut SyncReport, zstd: &mut bool, event: &SessionEvent) {
    match event {
        SessionEvent::Opened { peer, is_authority, capabilities, .. } => {
            *zstd = capabilities & capability::ZSTD != 0;
            report.peer = peer.to_string();
            report.is_authority = *is_authority;
        }
        SessionEvent::Joined { registers, quarantined, own, changed } => {
            let pulled = &mut report.pulled;
            pulled.received += registers;
            pulled.set_aside += quarantined;
            pulled.own += own;
            pulled.applied += registers.saturating_sub(quarantined + own);
            pulled.changed += changed;
        }
        // How far that is says the session: of several scopes the one that is furthest behind counts.
        SessionEvent::More { .. } => report.pulled.more = true,
        SessionEvent::CaughtUp => report.pulled.more = false,
        SessionEvent::Offering { edits } => {
            // What an upload has brought in vain was offered, too, before any of these.
            report.pushed.offered = *edits + report.pushed.rejected.values().sum::<usize>();
        }
        SessionEvent::Returned(refused) => {
            report.pushed.offered += refused.values().sum::<usize>();
            refuse(report, refused);
        }
        SessionEvent::Sent { registers } => report.given += registers,
        SessionEvent::Answered(answered) => count(report, answered),
        SessionEvent::Denied { scope } if !report.denied.contains(scope) => report.denied.push(scope.clone()),
        SessionEvent::Diverged { .. } => report.diverged = true,
        SessionEvent::Repaired { registers, .. } => report.repaired += registers,
        SessionEvent::Verified { .. } => report.verified = true,
        _ => {}
    }
}

fn count(report: &mut SyncReport, answered: &Answered) {
    let pushed = &mut report.pushed;
    pushed.accepted += answered.accepted;
    pushed.superseded += answered.superseded;
    pushed.duplicate += answered.duplicate;
    refuse(report, &answered.refused);
}

fn refuse(report: &mut SyncReport, refused: &BTreeMap<Code, usize>) {
    for (code, edits) in refused {
        let reason = code.name().map_or_else(|| code.0.to_string(), str::to_owned);
        *report.pushed.rejected.entry(reason).or_default() += edits;
    }
}
