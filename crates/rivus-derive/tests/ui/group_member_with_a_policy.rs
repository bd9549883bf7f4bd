use rivus_derive::Entity;

#[derive(Entity)]
struct Entry {
    #[rivus(id)]
    id: String,
    #[rivus(group = "interval", margin_ms = 5000)]
    start: u64,
}

fn main() {}
