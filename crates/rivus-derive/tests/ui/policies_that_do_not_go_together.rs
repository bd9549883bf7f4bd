use rivus_derive::Entity;

#[derive(Entity)]
struct TwoTypes {
    #[rivus(id)]
    id: String,
    #[rivus(set, map)]
    tags: Vec<String>,
}

#[derive(Entity)]
struct CounterWithMargin {
    #[rivus(id)]
    id: String,
    #[rivus(counter, margin_ms = 5)]
    views: i64,
}

#[derive(Entity)]
struct ResolverAlone {
    #[rivus(id)]
    id: String,
    #[rivus(resolver = "rank")]
    owner: String,
}

#[derive(Entity)]
struct WinsAlone {
    #[rivus(id)]
    id: String,
    #[rivus(wins = "add")]
    owner: String,
}

#[derive(Entity)]
struct TwoMargins {
    #[rivus(id)]
    id: String,
    #[rivus(margin_ms = 5, margin = "inf")]
    owner: String,
}

fn main() {}
