use rivus_derive::Entity;

#[derive(Entity)]
#[rivus(at_most_one(group = usr, while_none = stop, order = start))]
struct UnknownField {
    #[rivus(id)]
    id: String,
    user: String,
    start: u64,
    stop: Option<u64>,
}

#[derive(Entity)]
#[rivus(at_most_one(group = (user, tags), while_none = stop, order = start))]
struct SetInGroup {
    #[rivus(id)]
    id: String,
    user: String,
    #[rivus(set)]
    tags: Vec<String>,
    start: u64,
    stop: Option<u64>,
}

#[derive(Entity)]
#[rivus(at_most_one(group = user, order = start))]
struct NothingOpen {
    #[rivus(id)]
    id: String,
    user: String,
    start: u64,
}

#[derive(Entity)]
#[rivus(at_most_one(group = user, while_none = stop, order = start, time = seconds))]
struct OtherTime {
    #[rivus(id)]
    id: String,
    user: String,
    start: u64,
    stop: Option<u64>,
}

#[derive(Entity)]
struct Clash {
    #[rivus(id)]
    id: String,
    #[rivus(unique(group = id, on_clash = rename))]
    name: String,
}

#[derive(Entity)]
struct Word {
    #[rivus(id)]
    id: String,
    #[rivus(unique(on_clash = renam))]
    name: String,
}

#[derive(Entity)]
struct Gone {
    #[rivus(id)]
    id: String,
    #[rivus(reference)]
    project: Ref<Project>,
}

#[derive(Entity)]
struct GoneNull {
    #[rivus(id)]
    id: String,
    #[rivus(reference(on_gone = nullify))]
    project: Ref<Project>,
}

#[derive(Entity)]
struct Unbound {
    #[rivus(id)]
    id: String,
    #[rivus(bound)]
    hours: u64,
}

#[derive(Entity)]
struct Minimum {
    #[rivus(id)]
    id: String,
    #[rivus(bound(min = 0, maximum = 5))]
    hours: u64,
}

#[derive(Entity)]
struct Itself {
    #[rivus(id)]
    id: String,
    #[rivus(at_least = start)]
    start: u64,
}

#[derive(Entity)]
struct Quoted {
    #[rivus(id)]
    id: String,
    start: u64,
    #[rivus(at_least = "start")]
    stop: u64,
}

#[derive(Entity)]
struct TwoScopes {
    #[rivus(id)]
    id: String,
    #[rivus(scope)]
    user: String,
    #[rivus(scope)]
    team: String,
}

#[derive(Entity)]
struct RuledId {
    #[rivus(id, unique)]
    id: String,
}

fn main() {}
