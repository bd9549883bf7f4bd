//! What can be typed: the commands and their options.

mod help;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::assignment::{Assignment, Increment, KeyAssignment, Member};
use crate::log;
use crate::serve::settings::Serve;
use crate::simulate::Token;

/// Rivus: an offline-first database that merges field by field.
#[derive(Parser, Debug)]
#[command(name = "rivus", version, max_term_width = 100, after_help = help::EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The options of every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Global {
    /// The database file; `put`, `import`, `serve`, `sync` and `live` make one if there is none
    #[arg(long, global = true, value_name = "FILE", env = "RIVUS_DB", default_value = "rivus.db")]
    pub(crate) db: PathBuf,
    /// Whether it was named.
    #[arg(skip)]
    pub(crate) db_is_given: bool,
    /// How each field merges, as TOML or JSON; without it every kind and field is taken and the newest wins
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) schema: Option<PathBuf>,
    /// Print JSON, errors too (these to standard error)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more to standard error: -v, -vv, -vvv; RUST_LOG says it in detail
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show what merging does: a hub and two devices edit offline and come back
    #[command(after_help = help::DEMO)]
    Demo {
        /// The folder to make for the three databases [default: ./rivus-demo-N]
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Edit an entity, which creates it if it is not there: one edit, all of it or nothing
    #[command(after_help = help::PUT, override_usage = help::PUT_USAGE, group = ArgGroup::new("edit").required(true).multiple(true)
        .args(["fields", "add", "remove", "set_key", "inc"]))]
    Put(Put),
    /// Show an entity, and who wrote each field when
    #[command(after_help = help::SHOW)]
    Show {
        /// Its kind
        kind: String,
        /// Its id
        id: String,
    },
    /// Explain why an entity, or one field of it, shows what it does
    #[command(after_help = help::EXPLAIN)]
    Explain {
        /// Its kind
        kind: String,
        /// Its id
        id: String,
        /// The field [default: all]
        field: Option<String>,
    },
    /// List the writes of this database that lost to one that had not seen them
    #[command(after_help = help::CONFLICTS)]
    Conflicts(Conflicts),
    /// List what rules show in place of what was written
    #[command(after_help = help::OVERLAYS)]
    Overlays {
        /// Of this kind
        kind: Option<String>,
        /// Of this entity
        id: Option<String>,
    },
    /// List the edits of this database that the hub refused, and those that wait for one of them
    #[command(after_help = help::REJECTED)]
    Rejected(Rejected),
    /// List the kinds, or the entities of one kind
    #[command(after_help = help::LIST)]
    List {
        /// The kind
        kind: Option<String>,
    },
    /// Delete an entity; its fields are kept for `revive`
    #[command(after_help = help::DELETE)]
    Delete {
        /// Its kind
        kind: String,
        /// Its id
        id: String,
    },
    /// Take a deletion back
    #[command(after_help = help::REVIVE)]
    Revive {
        /// Its kind
        kind: String,
        /// Its id
        id: String,
    },
    /// Free the room of entities that a hub has too; nothing is deleted, and `fetch` has them back
    #[command(after_help = help::EVICT)]
    Evict {
        /// Their kind
        kind: String,
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Forget what is deleted for everybody, on a hub's database
    #[command(after_help = help::COLLECT)]
    Collect {
        /// Keep what was deleted less than so many days ago
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        grace: u32,
        /// Print what would be forgotten, and forget nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the databases that a hub waits for before it forgets what is deleted
    #[command(after_help = help::LEASES)]
    Leases {
        /// End the lease of this store: nothing waits for it any more
        #[arg(long, value_name = "STORE")]
        end: Option<String>,
    },
    /// List who has databases at a hub, on the hub's database
    #[command(after_help = help::ACCOUNTS)]
    Accounts,
    /// Have whoever connects next with the databases of an account have them, on a hub's database
    #[command(after_help = help::ACCOUNTS)]
    Disown {
        /// The account, as `accounts` lists it
        subject: String,
    },
    /// Have entities of a hub, evicted ones among them
    #[command(after_help = help::FETCH)]
    Fetch(Fetch),
    /// Print what changed, when, and whose doing it was
    #[command(after_help = log::LOG)]
    Log(log::Log),
    /// Take an edit back that was made here
    #[command(after_help = log::UNDO)]
    Undo(log::Undo),
    /// Say where the database stands
    #[command(after_help = help::STATUS)]
    Status,
    /// Read the whole database and check it
    #[command(after_help = help::VERIFY)]
    Verify,
    /// Make anew what is kept beside the rows, and have the next sync compare everything
    #[command(after_help = help::VERIFY)]
    Repair,
    /// Write a copy of the database to a new file, while others use it
    #[command(after_help = help::BACKUP)]
    Backup {
        /// The new file
        file: PathBuf,
    },
    /// Make the database from a backup
    #[command(after_help = help::BACKUP)]
    Restore {
        /// The backup
        file: PathBuf,
    },
    /// Read entities from a file: JSON, JSON Lines or CSV
    #[command(after_help = help::IMPORT)]
    Import(Import),
    /// Write entities to a file or standard output: JSON, JSON Lines or CSV
    #[command(after_help = help::EXPORT)]
    Export(Export),
    /// Serve the database as a hub, until ctrl-c
    #[command(after_help = help::SERVE)]
    Serve(Box<Serve>),
    /// Ask a hub on this machine whether it is ready; the exit code is 1 if it is not
    #[command(after_help = help::HEALTH)]
    Health {
        /// What the hub has as --admin
        #[arg(long, value_name = "ADDRESS", env = "RIVUS_ADMIN", default_value = "127.0.0.1:9191")]
        admin: String,
    },
    /// Sync with a hub once
    #[command(after_help = help::SYNC)]
    Sync(Sync),
    /// Stay in sync with a hub and print what changes, until ctrl-c
    #[command(after_help = help::LIVE)]
    Live(Remote),
    /// Run a replay script and print what each replica shows
    #[command(after_help = help::REPLAY)]
    Replay(Replay),
    /// Simulate replicas under faults, from seeds, and check that nothing is lost
    #[command(after_help = help::SIMULATE)]
    Simulate(Simulate),
    /// Print a completion script for a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// `rivus conflicts`.
#[derive(Args, Debug)]
pub(crate) struct Conflicts {
    /// Take the conflict of this number off the list
    #[arg(long, value_name = "NUMBER")]
    pub(crate) dismiss: Vec<u64>,
    /// Write the lost value of this conflict again
    #[arg(long, value_name = "NUMBER")]
    pub(crate) restore: Vec<u64>,
}

/// `rivus rejected`.
#[derive(Args, Debug)]
pub(crate) struct Rejected {
    /// Make the refused edit with this key once more
    #[arg(long, value_name = "KEY")]
    pub(crate) retry: Vec<u64>,
    /// Take the refused edit with this key off the list
    #[arg(long, value_name = "KEY")]
    pub(crate) discard: Vec<u64>,
}

/// An edit.
#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The entity's kind
    pub(crate) kind: String,
    /// The entity's id
    pub(crate) id: String,
    /// Fields to set; a value is JSON if it reads as JSON, else text
    #[arg(value_name = "FIELD=VALUE")]
    pub(crate) fields: Vec<Assignment>,
    /// Add a key to a set
    #[arg(long, value_name = "FIELD=KEY")]
    pub(crate) add: Vec<Member>,
    /// Take a key out of a set or a map
    #[arg(long, value_name = "FIELD=KEY")]
    pub(crate) remove: Vec<Member>,
    /// Set a key of a map; the field ends at the first dot
    #[arg(long, value_name = "FIELD.KEY=VALUE")]
    pub(crate) set_key: Vec<KeyAssignment>,
    /// Add to a counter
    #[arg(long, value_name = "FIELD=N")]
    pub(crate) inc: Vec<Increment>,
    /// Go over everything, concurrent writes stamped in the far future among it: for repairs
    #[arg(long, conflicts_with_all = ["add", "remove", "set_key", "inc"])]
    pub(crate) force: bool,
}

/// Where entities are read from, and as what.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// The file; `-` is standard input
    pub(crate) file: PathBuf,
    /// The kind, for flat objects and CSV, which do not say it themselves
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// The field or column that holds the id [default: id]; where there is none, new ids are made
    #[arg(long, value_name = "FIELD")]
    pub(crate) id: Option<String>,
    /// The format [default: by the file's extension]
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Read CSV cells as `put` reads values: JSON if they read as JSON, else text
    #[arg(long)]
    pub(crate) infer: bool,
}

/// What is written, and where to.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The kind; all kinds without it
    pub(crate) kind: Option<String>,
    /// Instead of entities, the edits that no hub has accepted: pending ones and refused ones, as JSON
    #[arg(long, conflicts_with_all = ["kind", "format"])]
    pub(crate) pending: bool,
    /// Leave out entities that cannot be read, and say which; the exit code is 1 if there are any
    #[arg(long, conflicts_with = "pending")]
    pub(crate) skip_damaged: bool,
    /// The format [default: by the file's extension, else json]
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// The file; it appears when it is complete, in place of an older one [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The name of the id column in CSV
    #[arg(long, value_name = "COLUMN", default_value = "id")]
    pub(crate) id: String,
}

/// A file format.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// One array of objects, or objects by kind and id
    Json,
    /// An object a line
    Jsonl,
    /// Comma-separated values under a header
    Csv,
}

/// A hub to sync with.
#[derive(Args, Debug)]
pub(crate) struct Remote {
    /// The hub's address, such as wss://hub.example.org:7171, or ws://127.0.0.1:7171 without encryption
    pub(crate) url: String,
    /// The token that it grants access to
    #[arg(long, env = "RIVUS_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Trust hubs whose certificate was signed by these authorities, in PEM, and no others [default: the public ones]
    #[arg(long, value_name = "FILE", env = "RIVUS_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Follow this scope, and not everything; may be repeated, up to 64 times; empty for what is in no scope
    #[arg(long, value_name = "NAME")]
    pub(crate) scope: Vec<String>,
}

/// `rivus sync`.
#[derive(Args, Debug)]
pub(crate) struct Sync {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Send what is pending, and fetch nothing
    #[arg(long, conflicts_with_all = ["pull", "limit"])]
    pub(crate) push: bool,
    /// Fetch, and send nothing
    #[arg(long)]
    pub(crate) pull: bool,
    /// Fetch no further page once so many registers are here, and send nothing
    #[arg(long, value_name = "REGISTERS")]
    pub(crate) limit: Option<usize>,
}

/// `rivus fetch`.
#[derive(Args, Debug)]
pub(crate) struct Fetch {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Their kind
    pub(crate) kind: String,
    /// Their ids
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// A script and what to run it on.
#[derive(Args, Debug)]
pub(crate) struct Replay {
    /// The script, JSON Lines; `-` is standard input
    pub(crate) file: PathBuf,
    /// Where the replicas keep their data
    #[arg(long, value_enum, default_value_t = Store::Memory)]
    pub(crate) store: Store,
    /// How syncs go
    #[arg(long, value_enum, default_value_t = Transport::Direct)]
    pub(crate) transport: Transport,
}

/// What is simulated.
#[derive(Args, Debug)]
pub(crate) struct Simulate {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// How many seeds, one run each
    #[arg(long, default_value_t = 1000)]
    pub(crate) runs: u64,
    /// Long runs on SQLite files, with every fault, instead of short ones in memory
    #[arg(long)]
    pub(crate) full: bool,
    /// Time entries and projects under rules, looked at from all sides after every step, instead of faults
    #[arg(long, conflicts_with = "full")]
    pub(crate) rules: bool,
    /// Take one part of the seeds, such as 0/4, 1/4, 2/4 and 3/4 in four processes
    #[arg(long, value_name = "PART/PARTS", requires = "state")]
    pub(crate) shard: Option<Shard>,
    /// Keep in this file how far it is, and go on from there
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Fail unless every rare situation came up at least this often: a simulator that no longer gets there tests
    /// nothing of it
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    pub(crate) each: u64,
    /// Run this one again, as an earlier failure said
    #[arg(long, conflicts_with_all = ["seed", "runs", "full", "rules", "shard", "state", "each"])]
    pub(crate) token: Option<Token>,
}

/// Every how-manieth seed is taken, and from which on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    pub(crate) part: u64,
    pub(crate) parts: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match parts {
            Some((part, parts)) if part < parts => Ok(Self { part, parts }),
            _ => Err("give two numbers, the first below the second, such as 0/4".to_owned()),
        }
    }
}

/// Where the replicas of a script keep their data.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Store {
    /// In memory
    Memory,
    /// In SQLite files in a temporary folder
    Sqlite,
}

/// How the syncs of a script go.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// Within the process
    Direct,
    /// Over WebSocket on loopback
    Websocket,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declarations_hold_together() {
        Arguments::command().debug_assert();
    }
}
