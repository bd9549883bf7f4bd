//! What a session's events come to in a report.

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
        SessionEvent::More { at } => (report.pulled.more, report.pulled.position) = (true, *at),
        SessionEvent::CaughtUp => report.pulled.more = false,
        SessionEvent::Offering { edits } => report.pushed.offered = *edits,
        SessionEvent::Answered(answered) => count(report, answered),
        SessionEvent::Denied { scope } => report.denied.push(scope.clone()),
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
    for (code, edits) in &answered.refused {
        let reason = code.name().map_or_else(|| code.0.to_string(), str::to_owned);
        *pushed.rejected.entry(reason).or_default() += edits;
    }
}
