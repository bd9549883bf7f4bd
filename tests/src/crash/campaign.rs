//! The harness at work: kills, losses of power, failing calls, refused locks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rivus_sqlite::Synchronous;

use super::disk::{Call, Disk, Image};
use super::oracle::{Oracle, Promise};
use rivus_testkit::random::Random;

/// One program under test.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// `rivus-test-crash`.
    pub program: PathBuf,
    /// Of the steps and of everything random.
    pub seed: u64,
    /// How the store is opened.
    pub synchronous: Synchronous,
}

/// What a campaign did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Points that the writer was stopped at, or images.
    pub points: usize,
    /// Calls of the class in an undisturbed run.
    pub calls: usize,
    /// Where more was found than acknowledged: stopped between commit and acknowledgement.
    pub ahead: usize,
    /// Where less was found than acknowledged: only without the promise of durability.
    pub behind: usize,
    /// Where a loss of power changed the files.
    pub lossy: usize,
    /// Where the writer reported the failure.
    pub reported: usize,
    /// Where it went on without: nothing that it needed had failed.
    pub absorbed: usize,
}

/// How long a writer waits for a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Not at all: each refusal is reported.
    None,
    /// Long enough: one refusal is never noticed.
    Some,
}

/// Called with how many points are done, and of how many.
pub type Progress<'p> = &'p mut dyn FnMut(usize, usize);

/// The usual seed.
pub const SEED: u64 = 0x5eed_0003;
/// The store's file in its folder.
const FILE: &str = "app.db";
/// What each way of syncing is called.
pub const SYNCHRONOUS: [(&str, Synchronous); 3] =
    [("full", Synchronous::Full), ("normal", Synchronous::Normal), ("off", Synchronous::Off)];

/// A folder in memory if there is one: nothing here needs a disk.
///
/// # Errors
/// If no folder can be made.
pub fn folder() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    Ok(made?)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod traced {
    use std::process::Command;

    use nix::errno::Errno;

    use super::*;
    use crate::crash::trace::{Act, Class, Ended, Moment, Seen, run};

    impl Campaign {
        /// Runs the writer in the folder.
        fn write(
            &self,
            folder: &Path,
            class: Class,
            (retries, busy_ms): (usize, u64),
            act: &mut dyn FnMut(&Seen<'_>) -> Act,
        ) -> Result<Ended> {
            let synchronous = SYNCHRONOUS.iter().find(|(_, found)| *found == self.synchronous);
            let mut command = Command::new(&self.program);
            command.arg("work").arg(folder.join(FILE)).arg(synchronous.map_or("full", |(name, _)| name));
            command.args([self.seed.to_string(), retries.to_string(), busy_ms.to_string()]);
            run(&mut command, folder, class, act)
        }

        /// Kills the writer before and after every `each`-th call that writes, and checks what is left.
        ///
        /// # Errors
        /// The seed, the point, and what is wrong there.
        pub fn kill(&self, each: usize, progress: Progress<'_>) -> Result<Tally> {
            let oracle = Oracle::new(self.seed)?;
            let calls = self.count(Class::Write)?;
            let mut tally = Tally { calls, ..Tally::default() };
            let numbers: Vec<usize> = (0..calls).step_by(each).collect();
            for (done, number) in numbers.iter().enumerate() {
                for moment in [Moment::Before, Moment::After] {
                    let at = || format!("seed {}, killed {moment:?} call {number}", self.seed);
                    self.kill_at(*number, moment, &oracle, &mut tally).with_context(at)?;
                }
                progress(done + 1, numbers.len());
            }
            Ok(tally)
        }

        fn kill_at(&self, number: usize, moment: Moment, oracle: &Oracle, tally: &mut Tally) -> Result<()> {
            let folder = folder()?;
            let mut killed = false;
            let ended = self.write(folder.path(), Class::Write, (0, 5000), &mut |seen| {
                let here =
                    seen.number == number && seen.moment == moment && !matches!(seen.effects, [Call::Say(_)]);
                killed |= here;
                if here { Act::Kill } else { Act::Go }
            })?;
            ensure!(killed, "the call was not reached: the run is not the same each time ({})", ended.stderr);
            let found = oracle.check(&folder.path().join(FILE), acked(&ended.said), Promise::Durable)?;
            tally.points += 1;
            tally.ahead += usize::from(found.commits > found.acknowledged);
            Ok(())
        }

        /// How many calls of the class an undisturbed run makes.
        fn count(&self, class: Class) -> Result<usize> {
            let folder = folder()?;
            let ended = self.write(folder.path(), class, (0, 5000), &mut |_| Act::Go)?;
            ensure!(ended.status.success(), "the writer fails undisturbed: {}", ended.stderr);
            Ok(ended.calls)
        }

        /// What an undisturbed run does to its files.
        fn record(&self) -> Result<Vec<Call>> {
            let folder = folder()?;
            let mut record = Vec::new();
            let ended = self.write(folder.path(), Class::Write, (0, 5000), &mut |seen| {
                record.extend_from_slice(seen.effects);
                Act::Go
            })?;
            ensure!(ended.status.success(), "the writer fails undisturbed: {}", ended.stderr);
            Ok(record)
        }

        /// Cuts the power at random points and checks what a disk may then hold.
        ///
        /// # Errors
        /// The seed, the image, and what is wrong with it.
        pub fn power(&self, images: usize, progress: Progress<'_>) -> Result<Tally> {
            let oracle = Oracle::new(self.seed)?;
            let record = self.record()?;
            let promise = match self.synchronous {
                Synchronous::Full => Promise::Durable,
                Synchronous::Normal | Synchronous::Off => Promise::Consistent,
            };
            let mut random = Random::new(self.seed);
            let mut points: Vec<usize> = (0..images).map(|_| random.below(record.len() + 1)).collect();
            points.sort_unstable();
            let mut tally = Tally { calls: record.len(), ..Tally::default() };
            let (mut disk, mut acknowledged, mut done) = (Disk::default(), 0, 0);
            for (number, point) in points.iter().enumerate() {
                for call in record.get(done..*point).unwrap_or_default() {
                    disk.apply(call);
                    if let Call::Say(said) = call {
                        acknowledged = acked(said);
                    }
                }
                done = *point;
                tally.lossy += usize::from(disk.unsynced() > 0);
                let at = || {
                    format!("seed {}, image {number} of {images}, power cut before call {point}", self.seed)
                };
                let image = disk.image(&mut random);
                check_image(&image, &oracle, acknowledged, promise, &mut tally).with_context(at)?;
                progress(number + 1, images);
            }
            Ok(tally)
        }

        /// Lets every `each`-th call that writes fail once, as on a bad and on a full disk, for a writer that gives up
        /// and for one that tries again.
        ///
        /// # Errors
        /// The seed, the point, and what is wrong there.
        pub fn fail(&self, each: usize, progress: Progress<'_>) -> Result<Tally> {
            let kinds = [(Errno::EIO, 0), (Errno::EIO, 2), (Errno::ENOSPC, 0), (Errno::ENOSPC, 2)];
            self.refuse(Class::Write, each, &kinds, 5000, progress)
        }

        /// Refuses every `each`-th request for a lock once, as if another process held it.
        ///
        /// # Errors
        /// The seed, the point, and what is wrong there.
        pub fn busy(&self, each: usize, patience: Patience, progress: Progress<'_>) -> Result<Tally> {
            let (kinds, busy_ms): (&[_], _) = match patience {
                Patience::None => (&[(Errno::EAGAIN, 0), (Errno::EAGAIN, 2)], 0),
                Patience::Some => (&[(Errno::EAGAIN, 0)], 5000),
            };
            self.refuse(Class::Lock, each, kinds, busy_ms, progress)
        }

        fn refuse(
            &self,
            class: Class,
            each: usize,
            kinds: &[(Errno, usize)],
            busy_ms: u64,
            progress: Progress<'_>,
        ) -> Result<Tally> {
            let oracle = Oracle::new(self.seed)?;
            let calls = self.count(class)?;
            let mut tally = Tally { calls, ..Tally::default() };
            let numbers: Vec<usize> = (0..calls).step_by(each).collect();
            for (done, number) in numbers.iter().enumerate() {
                for (errno, retries) in kinds {
                    let at = || format!("seed {}, {errno} at call {number}, {retries} retries", self.seed);
                    self.refuse_at(class, *number, *errno, (*retries, busy_ms), &oracle, &mut tally)
                        .with_context(at)?;
                }
                progress(done + 1, numbers.len());
            }
            Ok(tally)
        }

        fn refuse_at(
            &self,
            class: Class,
            number: usize,
            errno: Errno,
            how: (usize, u64),
            oracle: &Oracle,
            tally: &mut Tally,
        ) -> Result<()> {
            let folder = folder()?;
            let ended = self.write(folder.path(), class, how, &mut |seen| {
                let here = seen.number == number && seen.moment == Moment::Before;
                if here { Act::Fail(errno) } else { Act::Go }
            })?;
            let acked = acked(&ended.said);
            let file = folder.path().join(FILE);
            tally.points += 1;
            let waits = class == Class::Lock && how.1 > 0;
            // SQLite steps down from a write lock to a read lock by asking for it. No other process can refuse that,
            // but the harness can: SQLite calls it a failure of the system.
            let waited = ended.stderr.is_empty() || ended.stderr.contains("disk I/O error");
            ensure!(!waits || waited, "not waited out: {}", ended.stderr.trim());
            if ended.stderr.is_empty() {
                ensure!(ended.status.success(), "it failed without a word: {}", ended.status);
                tally.absorbed += 1;
            } else {
                // What to do is part of every message of a store.
                let advised = ["try again", "check that", "restore a backup"]
                    .iter()
                    .any(|advice| ended.stderr.contains(advice));
                ensure!(advised && ended.stderr.contains("store"), "no advice in `{}`", ended.stderr.trim());
                tally.reported += 1;
            }
            if how.0 == 0 || ended.stderr.is_empty() {
                ensure!(ended.status.success() == ended.stderr.is_empty(), "{}", ended.stderr);
                let found = oracle.check(&file, acked, Promise::Durable)?;
                tally.ahead += usize::from(found.commits > found.acknowledged);
            } else {
                ensure!(ended.status.success(), "it did not work again: {}", ended.stderr.trim());
                oracle.check_shown(&file, acked)?;
            }
            Ok(())
        }
    }
}

fn check_image(
    image: &Image,
    oracle: &Oracle,
    acked: usize,
    promise: Promise,
    tally: &mut Tally,
) -> Result<()> {
    let folder = folder()?;
    for (name, content) in image {
        std::fs::write(folder.path().join(name), content)?;
    }
    let found = oracle.check(&folder.path().join(FILE), acked, promise)?;
    tally.points += 1;
    tally.ahead += usize::from(found.commits > found.acknowledged);
    tally.behind += usize::from(found.commits < found.acknowledged);
    Ok(())
}

/// How many steps the writer has said are durable.
fn acked(said: &str) -> usize {
    let last = said.lines().rev().find_map(|line| line.strip_prefix("acked "));
    last.and_then(|number| number.parse().ok()).unwrap_or(0)
}
