use rivus_derive::Entity;

#[derive(Entity)]
struct Tuple(String);

#[derive(Entity)]
enum Choice {
    One,
}

#[derive(Entity)]
struct Generic<T> {
    #[rivus(id)]
    id: String,
    value: T,
}

fn main() {}
