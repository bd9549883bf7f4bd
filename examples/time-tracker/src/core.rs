//! What a time tracker is: entries, projects, and what is done with them.
use rivus::{Db, Entity, Error, Ref};

/// A stretch of work. Of each user one entry runs at most, on however many devices entries were started.
#[derive(Entity, Debug, Clone, Default, PartialEq)]
#[rivus(at_most_one(group = user, while_none = stop, order = start, time = ms))]
pub(crate) struct Entry {
    #[rivus(id)]
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) text: String,
    /// A project that is deleted shows as none.
    #[rivus(reference)]
    pub(crate) project: Option<Ref<Project>>,
    /// Milliseconds since 1970.
    pub(crate) start: i64,
    /// None while it runs. Never shows before the start.
    #[rivus(at_least = start)]
    pub(crate) stop: Option<i64>,
}

/// What entries are for. No two show the same name.
#[derive(Entity, Debug, Clone, Default, PartialEq)]
pub(crate) struct Project {
    #[rivus(id)]
    pub(crate) id: String,
    pub(crate) workspace: String,
    #[rivus(unique(group = workspace))]
    pub(crate) name: String,
}

/// The entry that runs.
pub(crate) fn running(db: &Db, user: &str) -> Result<Option<Entry>, Error> {
    Ok(db.list::<Entry>()?.into_iter().find(|entry| entry.user == user && entry.stop.is_none()))
}

/// Starts an entry. What ran until now stops by the rule.
pub(crate) fn start(
    db: &Db,
    user: &str,
    text: &str,
    project: Option<&str>,
    now: i64,
) -> Result<Entry, Error> {
    let project = project.map(|name| self::project(db, name)).transpose()?.map(|project| Ref::of(&project));
    let entry =
        Entry { id: rivus::new_id(), user: user.into(), text: text.into(), project, start: now, stop: None };
    db.insert(&entry)?;
    Ok(entry)
}

/// Stops the entry that runs.
pub(crate) fn stop(db: &Db, user: &str, now: i64) -> Result<Option<Entry>, Error> {
    let Some(entry) = running(db, user)? else { return Ok(None) };
    db.edit::<Entry>(&entry.id, |entry| entry.stop = Some(now))?;
    db.get::<Entry>(&entry.id)
}

/// The project of this name, made if there is none.
pub(crate) fn project(db: &Db, name: &str) -> Result<Project, Error> {
    if let Some(project) = db.list::<Project>()?.into_iter().find(|project| project.name == name) {
        return Ok(project);
    }
    let project = Project { id: rivus::new_id(), workspace: "main".into(), name: name.into() };
    db.insert(&project)?;
    Ok(project)
}
