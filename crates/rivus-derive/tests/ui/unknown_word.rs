use rivus_derive::Entity;

#[derive(Entity)]
#[rivus(life = "forever")]
struct Task {
    #[rivus(id)]
    id: String,
}

#[derive(Entity)]
struct Resolved {
    #[rivus(id)]
    id: String,
    #[rivus(margin_ms = 5000, resolver = "longest")]
    title: String,
}

#[derive(Entity)]
struct Margin {
    #[rivus(id)]
    id: String,
    #[rivus(margin = "5 s")]
    title: String,
}

#[derive(Entity)]
struct Wins {
    #[rivus(id)]
    id: String,
    #[rivus(set, wins = "delete")]
    tags: Vec<String>,
}

fn main() {}
