use rivus_derive::Entity;

#[derive(Entity)]
#[rivus(kind = 5)]
struct Kind {
    #[rivus(id)]
    id: String,
}

#[derive(Entity)]
struct Value {
    #[rivus(id)]
    id: String,
    #[rivus(set = "yes")]
    tags: Vec<String>,
}

#[derive(Entity)]
struct Twice {
    #[rivus(id)]
    id: String,
    #[rivus(set)]
    #[rivus(set)]
    tags: Vec<String>,
}

#[derive(Entity)]
struct Same {
    #[rivus(id)]
    id: String,
    #[rivus(rename = "title")]
    name: String,
    title: String,
}

fn main() {}
