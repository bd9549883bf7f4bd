//! All that a replica shows, as one number.

use rivus_core::replica::Replica;
use rivus_core::store::{Store, StoreError};
use rivus_core::view::View;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A hash over every entity that shows, field by field.
pub(super) fn hash<S: Store>(replica: &Replica<S>) -> Result<u64, StoreError> {
    let mut hash = 0;
    for kind in replica.store().kinds()? {
        for id in replica.store().ids(&kind, None, usize::MAX)? {
            let Some(view) = replica.view(&kind, &id)?.filter(|view| !view.deleted) else { continue };
            hash = xxh3_64_with_seed(id.as_bytes(), xxh3_64_with_seed(kind.as_bytes(), hash));
            hash = of(&view, hash);
        }
    }
    Ok(hash)
}

fn of(view: &View, seed: u64) -> u64 {
    view.fields.iter().fold(seed, |hash, (name, shown)| {
        let shown = serde_json::to_vec(shown).unwrap_or_default();
        xxh3_64_with_seed(&shown, xxh3_64_with_seed(name.as_bytes(), hash))
    })
}
