//! The races in detail, and a line with the ratio to its floor for each.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use rivus_bench::race::{Files, Race, Start, Transactions};

fn main() {
    let (start, files) = (Start::new(Transactions::OfOneField), Files::new());
    let mut races = start.races();
    races.push(files.edits("sqlite edits, 1 a transaction", 500, 1));
    races.push(files.edits("sqlite edits, 10,000 a transaction", 10_000, 10_000));
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for race in &mut races {
        bench(&mut criterion, race);
    }
    criterion.final_summary();
    for race in &mut races {
        let best = race.best_of(5);
        println!("{}", race.line(best));
    }
}

fn bench(criterion: &mut Criterion, race: &mut Race<'_>) {
    let mut group = criterion.benchmark_group(race.name);
    group.throughput(Throughput::Elements(race.fields as u64));
    group.bench_function("engine", |b| b.iter_custom(|times| (0..times).map(|_| (race.engine)()).sum()));
    group.bench_function("floor", |b| b.iter_custom(|times| (0..times).map(|_| (race.floor)()).sum()));
    group.finish();
}
