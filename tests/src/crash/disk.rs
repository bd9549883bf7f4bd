//! A disk that loses power: what was synced is there, of the rest anything may be.
//!
//! Of what was written since a file's last sync each 512-byte sector may be there or not, in any combination, so
//! that writes are torn and reordered; lengths may have changed without the data; a truncation may be undone. Names
//! made or removed since the directory's last sync may be as before. Images are random, from a seed.

use std::collections::BTreeMap;

use rivus_testkit::random::Random;

/// What a process did to the files of one folder, or said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Made a file.
    Create(String),
    /// Wrote bytes into a file.
    Write {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Cut a file, or made it longer.
    Truncate {
        /// The file.
        name: String,
        /// How long it is now.
        len: u64,
    },
    /// Asked that a file's content be on the disk.
    Sync(String),
    /// Asked that the folder's names be on the disk.
    SyncFolder,
    /// Removed a name.
    Unlink(String),
    /// Wrote this on standard output.
    Say(String),
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<Change>,
}

/// The files of one folder: what is surely on the disk, and what may be.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    /// Names as the running system sees them.
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// What each name meant, in order, since the folder's last sync.
    since: BTreeMap<String, Vec<Option<usize>>>,
}

/// The files after a loss of power.
pub type Image = BTreeMap<String, Vec<u8>>;

impl Disk {
    /// Takes a call in.
    pub fn apply(&mut self, call: &Call) {
        match call {
            Call::Create(name) => {
                self.names.insert(name.clone(), self.files.len());
                self.since.entry(name.clone()).or_default().push(Some(self.files.len()));
                self.files.push(File::default());
            }
            Call::Unlink(name) => {
                self.names.remove(name);
                self.since.entry(name.clone()).or_default().push(None);
            }
            Call::Write { name, offset, bytes } => {
                let change = Change::Write { offset: index(*offset), bytes: bytes.clone() };
                self.change(name, change);
            }
            Call::Truncate { name, len } => self.change(name, Change::Truncate(index(*len))),
            Call::Sync(name) => {
                if let Some(file) = self.names.get(name).and_then(|file| self.files.get_mut(*file)) {
                    for change in std::mem::take(&mut file.since) {
                        change.apply(&mut file.synced);
                    }
                }
            }
            Call::SyncFolder => {
                self.synced_names = self.names.clone();
                self.since.clear();
            }
            Call::Say(_) => {}
        }
    }

    fn change(&mut self, name: &str, change: Change) {
        if let Some(file) = self.names.get(name).and_then(|file| self.files.get_mut(*file)) {
            file.since.push(change);
        }
    }

    /// How many calls since the last syncs a loss of power may undo. The write-ahead index does not count.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        let counts = self.names.iter().filter(|(name, _)| !name.ends_with("-shm"));
        counts.filter_map(|(_, file)| self.files.get(*file)).map(|file| file.since.len()).sum()
    }

    /// What a loss of power may leave.
    pub fn image(&self, random: &mut Random) -> Image {
        let mut names = self.synced_names.clone();
        for (name, meanings) in &self.since {
            // A file system keeps the order of what happens to one name.
            let reached = random.below(meanings.len() + 1);
            match reached.checked_sub(1).and_then(|last| meanings.get(last)) {
                Some(Some(file)) => drop(names.insert(name.clone(), *file)),
                Some(None) => drop(names.remove(name)),
                None => {}
            }
        }
        let left = names.into_iter().filter_map(|(name, file)| {
            let file = self.files.get(file)?;
            let garbage = name.ends_with("-shm").then(|| garbage(random, 32 << 10));
            Some((name, garbage.unwrap_or_else(|| file.left(random))))
        });
        left.collect()
    }
}

impl File {
    /// The content after a loss of power.
    fn left(&self, random: &mut Random) -> Vec<u8> {
        let kept = SHARES.get(random.below(SHARES.len())).copied().unwrap_or_default();
        let torn = random.chance(60, 100);
        let mut content = self.synced.clone();
        let mut len_max = content.len();
        for change in &self.since {
            match change {
                Change::Truncate(len) => {
                    if random.chance(kept, 100) {
                        content.resize(*len, 0);
                    }
                }
                Change::Write { offset, bytes } => {
                    len_max = len_max.max(offset + bytes.len());
                    let whole = random.chance(kept, 100);
                    for part in sectors(*offset, bytes.len()) {
                        if if torn { random.chance(kept, 100) } else { whole } {
                            let piece = bytes.get(part.clone()).unwrap_or_default();
                            write_at(&mut content, offset + part.start, piece);
                        }
                    }
                }
            }
        }
        // The length is kept apart from the data: what lies between may be anything.
        if content.len() < len_max && random.chance(30, 100) {
            let missing = len_max - content.len();
            if random.chance(50, 100) {
                content.resize(len_max, 0);
            } else {
                content.extend(garbage(random, missing));
            }
        }
        content
    }
}

impl Change {
    fn apply(self, content: &mut Vec<u8>) {
        match self {
            Self::Truncate(len) => content.resize(len, 0),
            Self::Write { offset, bytes } => write_at(content, offset, &bytes),
        }
    }
}

/// The parts of a write that lie in one sector each, as ranges of its bytes.
fn sectors(offset: usize, len: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from;
        from = len.min(start + SECTOR - (offset + start) % SECTOR);
        (start < len).then_some(start..from)
    })
}

fn write_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    if let Some(place) = content.get_mut(offset..offset + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn garbage(random: &mut Random, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(len).collect()
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// The unit that a disk writes whole.
const SECTOR: usize = 512;
/// How much of what was not synced is there, in per cent.
const SHARES: [usize; 5] = [0, 15, 50, 85, 100];

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8, len: usize) -> Call {
        Call::Write { name: "f".into(), offset, bytes: vec![byte; len] }
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_may_be_torn() {
        let mut disk = Disk::default();
        for call in [Call::Create("f".into()), write(0, 1, 2048), Call::Sync("f".into()), Call::SyncFolder] {
            disk.apply(&call);
        }
        let mut random = Random::new(1);
        for _ in 0..50 {
            assert_eq!(disk.image(&mut random).get("f"), Some(&vec![1; 2048]));
        }
        disk.apply(&write(100, 2, 1500));
        disk.apply(&Call::Truncate { name: "f".into(), len: 512 });
        let images: std::collections::BTreeSet<Vec<u8>> =
            (0..500).map(|_| disk.image(&mut random).remove("f").unwrap_or_default()).collect();
        assert!(
            images.iter().all(|image| image.len() >= 512 && image.iter().take(100).all(|byte| *byte == 1))
        );
        assert!(images.len() > 12, "{} images: every combination of four sectors and a length", images.len());
        assert!(
            images.iter().any(|image| image.len() == 512) && images.iter().any(|image| image.len() == 2048)
        );
    }

    #[test]
    fn a_name_is_sure_once_its_folder_is_synced() {
        let mut disk = Disk::default();
        disk.apply(&Call::Create("f".into()));
        let mut random = Random::new(2);
        let there = |disk: &Disk, random: &mut Random| {
            (0..100).filter(|_| disk.image(random).contains_key("f")).count()
        };
        assert!((1..100).contains(&there(&disk, &mut random)));
        disk.apply(&Call::SyncFolder);
        assert_eq!(there(&disk, &mut random), 100);
        disk.apply(&Call::Unlink("f".into()));
        assert!((1..100).contains(&there(&disk, &mut random)));
        disk.apply(&Call::SyncFolder);
        assert_eq!(there(&disk, &mut random), 0);
    }

    #[test]
    fn sectors_end_at_multiples_of_512() {
        assert_eq!(sectors(100, 1500).collect::<Vec<_>>(), [0..412, 412..924, 924..1436, 1436..1500]);
        assert_eq!(sectors(512, 512).collect::<Vec<_>>(), vec![0..512]);
    }
}
