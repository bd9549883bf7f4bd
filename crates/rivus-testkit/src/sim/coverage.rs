//! The rare situations of replicas under faults.

use crate::sometimes::sometimes;

sometimes! {
    /// Three candidates within a finite margin.
    MarginTie = "margin tie of three alive",
    /// A writer carries on a floor above the one that its own margin gives.
    FloorRaised = "floor raised by an older schema",
    /// A deleted entity shows again.
    Revival = "revival",
    /// A write raises the generation over a stamp that the clock cannot reach.
    PoisonOverride = "poison override",
    /// A copied database notices that it is one.
    CloneFound = "cloned id found",
    /// A restored backup notices that it is one.
    BackupFound = "restored backup found",
    /// A store starts over, or its authority does, with edits that nobody else has.
    ResetUnsent = "reset with unsent edits",
    /// A commit was overtaken and made again.
    StaleRetried = "stale commit retried",
    /// A connection ends within a pass of several pages, and the next goes on there.
    PageResumed = "page cut and resumed",
    /// A row that a reader has passed changes before the pass is over.
    ChangedBehind = "row changed behind the reader's cursor",
    /// Later pending edits are made anew without a refused one.
    RefusedRebuilt = "refused edit taken back, later edits rebuilt",
    /// An authority answers AGAIN.
    Again = "again answered",
    /// A device corrects its clock after CLOCK_SKEW.
    SkewCorrected = "clock correction after a refusal",
    /// A register set aside comes due.
    QuarantineReleased = "quarantined register released",
    /// A store passes on what its schema does not declare.
    UnknownForwarded = "unknown field or kind forwarded",
    /// An entity has more than one row.
    Chunked = "entity in chunks",
    /// A counter goes on under the new id of a copy.
    CounterContinued = "counter continued after copy",
    /// One stamp with two contents meets.
    Clash = "one stamp with two contents",
    /// A process dies before a commit.
    DiedBefore = "crash before a commit",
    /// A process dies after a commit that nobody heard of.
    DiedAfter = "crash after a commit",
    /// A connection breaks with frames under way.
    FramesLost = "connection cut with frames under way",
    /// A connection goes on in one direction alone.
    OneWay = "one-way link",
    /// A frame that comes twice, late or not at all ends the connection.
    BadOrder = "connection ended by a frame lost, doubled or late",
    /// An authority comes back from a backup.
    HubRestored = "hub restored from a backup",
    /// An edit is made while an earlier one is under way.
    EditInFlight = "edit made while a push is under way",
    /// A run goes along with the reference model.
    Modelled = "run beside the reference model",
    /// A transaction of several entities is read by another replica.
    TransactionRead = "transaction of several entities read",
    /// One process of a store makes another one's pending edit anew.
    TwinRebuilt = "edit of another process made anew",
}

/// How often each came up.
pub type Coverage = crate::sometimes::Coverage<Sometimes>;
