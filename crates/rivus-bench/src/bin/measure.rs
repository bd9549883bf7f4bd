//! Prints every figure that the project states of itself.

fn main() {
    let start = rivus_bench::race::Start::new(rivus_bench::race::Transactions::OfOneField);
    let only = std::env::args().nth(1).unwrap_or_default();
    for mut race in start.races().into_iter().filter(|r| r.name.contains(&only)) {
        let best = race.best_of(7);
        println!("{}", race.line(best));
    }
}
