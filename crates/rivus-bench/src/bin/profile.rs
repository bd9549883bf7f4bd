//! Temporary.
use rivus_bench::workload::*;
use rivus_core::clock::Millis;
use rivus_core::store::MemoryStore;
#[inline(never)]
fn marked(replica: &mut rivus_core::replica::Replica<MemoryStore>, ops: &[rivus_core::edit::Op]) {
    for op in ops {
        replica.edit(Millis(START_MS), std::slice::from_ref(op)).unwrap();
    }
}
#[inline(never)]
fn marked_join(start: &rivus_bench::race::Start) {
    let mut races = start.races();
    (races[1].engine)();
}
fn main() {
    let mut hub = hub();
    let mut device = device(MemoryStore::new(), 2, &mut hub);
    let few = &ids()[..500];
    let ops: Vec<_> = updates(200_000, &mut Random(21)).into_iter().filter(|op| few.contains(&op.id)).collect();
    let (warm, ops) = ops.split_at(ops.len() / 2);
    for op in warm {
        device.edit(Millis(START_MS), std::slice::from_ref(op)).unwrap();
    }
    println!("{} edits", ops.len());
    if std::env::args().nth(1).as_deref() == Some("join") {
        let start = rivus_bench::race::Start::new(rivus_bench::race::Transactions::OfOneField);
        marked_join(&start);
        return;
    }
    marked(&mut device, ops);
}
