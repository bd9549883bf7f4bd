use rivus_derive::Entity;

#[derive(Entity)]
struct NoId {
    title: String,
}

#[derive(Entity)]
struct TwoIds {
    #[rivus(id)]
    id: String,
    #[rivus(id)]
    other: String,
}

#[derive(Entity)]
struct IdWithPolicy {
    #[rivus(id, margin_ms = 5000)]
    id: String,
}

fn main() {}
