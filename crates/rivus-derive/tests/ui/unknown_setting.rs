use rivus_derive::Entity;

#[derive(Entity)]
struct Task {
    #[rivus(id)]
    id: String,
    #[rivus(margn_ms = 5000)]
    owner: String,
}

#[derive(Entity)]
#[rivus(name = "task")]
struct Named {
    #[rivus(id)]
    id: String,
}

fn main() {}
