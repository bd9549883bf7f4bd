//! The rare situations of rules.

use crate::model::rules::Sight;
use crate::sometimes::sometimes;

sometimes! {
    /// An entry that ended before another began is no successor of that.
    PassedOver = "successor passed over",
    /// Three entries of one group lose at once.
    ThreeLosers = "three losers in one group",
    /// Two claims of one time, of different replicas.
    ClaimTie = "claim tie of two replicas",
    /// Two claims of one edit: the ids decide.
    OneEdit = "two claims of one edit",
    /// The successor has moved to another group, and its claim still counts.
    LeftBehind = "successor moved to another group",
    /// The successor has stopped, and the loser stays stopped.
    StoppedSuccessor = "successor stopped",
    /// The successor is deleted, and the loser stays stopped.
    DeletedSuccessor = "successor deleted",
    /// An open entry without a claim takes part.
    Claimless = "open entry without a claim",
    /// A back-dated winner: the end is taken from its claim.
    BackDated = "end taken from the claim of a back-dated winner",
    /// A name clashes.
    Renamed = "name clash",
    /// The shortest beginning of the hash is taken already.
    LongerPrefix = "name with a longer beginning of the hash",
    /// An entity stands for another.
    Alias = "alias",
    /// A reference to what is gone shows null.
    Nullified = "reference nullified",
    /// An entity goes with what it names.
    Cascaded = "deletion cascaded",
    /// And with it what names that.
    CascadedFurther = "deletion cascaded further",
    /// What is named stays.
    Kept = "deleted entity kept by a reference",
    /// And what that names.
    KeptFurther = "deleted entity kept by a kept one",
    /// A value outside of its bounds.
    Clamped = "value clamped",
    /// An end before its beginning.
    Turned = "end before its beginning",
    /// The rule of the application's own.
    Custom = "custom rule showed otherwise",
    /// An edit of a loser writes the end that it showed.
    Pinned = "shown end pinned by an edit",
    /// A user sets the end that is shown anyway.
    Confirmed = "shown end confirmed by the user",
    /// An edit claims a group while it leaves another.
    MovedGroup = "entity moved to another group",
    /// A replica knows of later rules, and evaluates none.
    Unresolved = "rules unresolved for their epoch",
    /// And then gets to know them.
    Upgraded = "schema upgraded",
    /// A program that knows no rules writes to the store.
    Foreign = "store written by a program without rules",
    /// A store is found to be a copy and starts over.
    StartedOver = "started over as a copy",
    /// A process ends and starts again.
    Restarted = "restart",
    /// A part of what is held arrives alone.
    Part = "part of a store passed on",
    /// Single registers arrive, apart from those of the same edit.
    Torn = "edit torn apart on its way",
    /// A connection breaks within a sync.
    CutOff = "connection cut within a sync",
    /// An authority refuses an edit.
    Refused = "edit refused by the authority",
    /// A refused edit had stopped a rival, which runs again.
    RunsAgain = "timer runs again after a refusal",
    /// A clock steps back.
    SteppedBack = "clock stepped back",
    /// An edit is made while earlier ones are pending.
    Pending = "edit on pending edits",
}

impl From<Sight> for Sometimes {
    fn from(sight: Sight) -> Self {
        match sight {
            Sight::PassedOver => Self::PassedOver,
            Sight::ThreeLosers => Self::ThreeLosers,
            Sight::ClaimTie => Self::ClaimTie,
            Sight::OneEdit => Self::OneEdit,
            Sight::LeftBehind => Self::LeftBehind,
            Sight::StoppedSuccessor => Self::StoppedSuccessor,
            Sight::DeletedSuccessor => Self::DeletedSuccessor,
            Sight::Claimless => Self::Claimless,
            Sight::BackDated => Self::BackDated,
            Sight::Renamed => Self::Renamed,
            Sight::LongerPrefix => Self::LongerPrefix,
            Sight::Alias => Self::Alias,
            Sight::Nullified => Self::Nullified,
            Sight::Cascaded => Self::Cascaded,
            Sight::CascadedFurther => Self::CascadedFurther,
            Sight::Kept => Self::Kept,
            Sight::KeptFurther => Self::KeptFurther,
            Sight::Clamped => Self::Clamped,
            Sight::Turned => Self::Turned,
            Sight::Custom => Self::Custom,
        }
    }
}

/// How often each came up.
pub type Coverage = crate::sometimes::Coverage<Sometimes>;
