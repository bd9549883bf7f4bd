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
fn unmarked(replica: &mut rivus_core::replica::Replica<MemoryStore>, ops: &[rivus_core::edit::Op]) {
    for op in ops {
        std::hint::black_box(replica.edit(Millis(START_MS), std::slice::from_ref(op))).unwrap();
    }
}
fn main() {
    let mut hub = hub();
    let mut device = device(MemoryStore::new(), 2, &mut hub);
    let few = std::env::args().nth(1).unwrap().parse().unwrap();
    let few = &ids()[..few];
    let mut random = Random(21);
    let few: std::collections::HashSet<_> = few.iter().cloned().collect();
    let ops: Vec<_> = updates(300_000, &mut random).into_iter().filter(|op| few.contains(&op.id)).collect();
    let (warm, ops) = ops.split_at(ops.len() / 3);
    unmarked(&mut device, warm);
    for ops in ops.chunks(ops.len() / 5) {
    let start = std::time::Instant::now();
    marked(&mut device, ops);
    let time = start.elapsed();
    println!("{} edits, {} ns each", ops.len(), time.as_nanos() / ops.len() as u128);
    }
}
