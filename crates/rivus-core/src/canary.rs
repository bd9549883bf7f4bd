//! Bugs on demand: does the simulator find them?
//!
//! Each canary is one plausible mistake, made where this crate guards against it, while a switch of the thread is
//! on. The switch exists with the feature `canary` alone, which only tests turn on; without it every question is
//! answered by a constant.

/// One deliberate mistake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Canary {
    /// A join keeps its own floor.
    OwnFloorStays,
    /// A stamp that was seen last counts as not seen.
    SeenIsStrict,
    /// A join keeps no seen entries.
    JoinForgetsSeen,
    /// Of two contents under one stamp the one that was here first stays.
    FirstComeStays,
    /// A commit does not keep the clock.
    HighWaterNotKept,
    /// A store that is opened again goes on under its last incarnation.
    IncarnationReused,
    /// A stamp passes nothing from the future.
    GenerationIgnored,
    /// An answer confirms also what was not asked about.
    AckDropsInFlight,
    /// Every page ends a pass.
    CursorOfOneNumber,
    /// What came from anybody is sent to nobody.
    SourceIsAnybody,
    /// Accepted edits are not joined into the confirmed form.
    AcceptForgotten,
    /// Taking an edit back leaves the digest as it was.
    WithdrawKeepsDigest,
    /// A commit that was overtaken counts as done.
    StaleIsDone,
    /// What comes due is dropped.
    ReleaseForgets,
    /// What is set aside is dropped at once.
    QuarantineDrops,
    /// A refusal for the clock corrects nothing.
    SkewNotCorrected,
    /// A restored authority is not given back what it lost.
    NoUpload,
    /// A copy that is told so goes on as it was.
    ForkIgnored,
    /// Kinds that are not declared are not joined.
    UnknownDropped,
    /// A refused edit is taken back and not kept.
    RefusedNotKept,
    /// A store does not know its own newest position.
    EndUnknown,
    /// Whoever makes a pending edit anew becomes its author.
    RebuiltAsOwn,
    /// Every edit claims the place anew that it leaves the entity in.
    ClaimRewritten,
    /// A claim counts from the last write of the field that it is about.
    ClaimIgnored,
    /// Whoever ended before one began stops that one all the same.
    NothingPassedOver,
    /// Who is deleted leaves the order of claims.
    DeletedLeave,
    /// Who moves to another group leaves the order of the old one.
    MovedLeave,
    /// Going on from what a rule shows accepts nothing.
    NothingPinned,
    /// A deleted entity stays in the index as it was.
    IndexKeepsDeleted,
    /// A new name goes with the claim of the old one.
    NameClaimStays,
    /// A loser's new name is not looked up.
    NamesNotLookedUp,
    /// What names what is gone goes; what names that stays.
    CascadeOnce,
    /// Nobody is told of an end that a rival moved.
    SwayedNotTold,
    /// A join writes what the rules show.
    RepairsEmitted,
}

impl Canary {
    /// Those that stores, registers and sessions would have to notice.
    pub const ALL: [Self; 22] = [
        Self::OwnFloorStays,
        Self::SeenIsStrict,
        Self::JoinForgetsSeen,
        Self::FirstComeStays,
        Self::HighWaterNotKept,
        Self::IncarnationReused,
        Self::GenerationIgnored,
        Self::AckDropsInFlight,
        Self::CursorOfOneNumber,
        Self::SourceIsAnybody,
        Self::AcceptForgotten,
        Self::WithdrawKeepsDigest,
        Self::StaleIsDone,
        Self::ReleaseForgets,
        Self::QuarantineDrops,
        Self::SkewNotCorrected,
        Self::NoUpload,
        Self::ForkIgnored,
        Self::UnknownDropped,
        Self::RefusedNotKept,
        Self::EndUnknown,
        Self::RebuiltAsOwn,
    ];

    /// Those that rules would have to notice.
    pub const RULES: [Self; 12] = [
        Self::ClaimRewritten,
        Self::ClaimIgnored,
        Self::NothingPassedOver,
        Self::DeletedLeave,
        Self::MovedLeave,
        Self::NothingPinned,
        Self::IndexKeepsDeleted,
        Self::NameClaimStays,
        Self::NamesNotLookedUp,
        Self::CascadeOnce,
        Self::SwayedNotTold,
        Self::RepairsEmitted,
    ];
}

#[cfg(feature = "canary")]
thread_local! {
    static ON: std::cell::Cell<Option<Canary>> = const { std::cell::Cell::new(None) };
}

/// Switches one canary on in this thread, or all off.
#[cfg(feature = "canary")]
pub fn switch(canary: Option<Canary>) {
    ON.set(canary);
}

/// Whether the mistake is to be made.
#[cfg(feature = "canary")]
pub(crate) fn is_on(canary: Canary) -> bool {
    ON.get() == Some(canary)
}

/// Whether the mistake is to be made: never.
#[cfg(not(feature = "canary"))]
pub(crate) const fn is_on(_: Canary) -> bool {
    false
}
