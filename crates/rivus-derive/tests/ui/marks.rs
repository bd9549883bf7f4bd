use rivus_derive::Entity;

#[derive(Entity)]
struct Stubborn {
    #[rivus(id)]
    id: String,
    #[rivus(on_conflict = restamp)]
    title: String,
}

#[derive(Entity)]
struct Fight {
    #[rivus(id)]
    id: String,
    #[rivus(margin_ms = 5000, on_conflict = fight)]
    title: String,
}

#[derive(Entity)]
struct Member {
    #[rivus(id)]
    id: String,
    #[rivus(group = "interval", default = 5)]
    start: u64,
}

#[derive(Entity)]
struct NoLiteral {
    #[rivus(id)]
    id: String,
    #[rivus(default = five)]
    start: u64,
}

fn main() {}
