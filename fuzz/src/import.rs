//! Files to be imported, by the command line's own reader.

#[path = "../../crates/rivus-cli/src/import/records.rs"]
mod records;

use crate::args::Format;
use records::{Options, Record};

/// The first byte says the format and the options; then the file.
pub fn import_file(data: &[u8]) {
    let Some((mode, file)) = data.split_first() else { return };
    let format = [Format::Json, Format::Jsonl, Format::Csv][usize::from(mode & 3) % 3];
    let kind = (mode & 4 != 0 || format == Format::Csv).then_some("task");
    let id = (mode & 8 != 0).then_some("key");
    let options = Options { kind, id, infer: mode & 16 != 0 };
    let mut total = 0;
    let read = records::read(file, format, options, &mut |record: Record| {
        let Record { place, kind, id, fields, bytes } = record;
        assert!(!place.to_string().is_empty() && (!id.is_empty() || mode & 4 == 0 || !kind.is_empty()));
        assert!(
            fields.iter().all(|(_, value)| value.depth_ok()),
            "what is too deep is refused when it is read"
        );
        total += bytes;
        Ok(())
    });
    assert!(total <= file.len(), "records lie in the file, one after the other");
    if let Err(error) = read {
        assert!(!format!("{error:#}").is_empty());
    }
}
