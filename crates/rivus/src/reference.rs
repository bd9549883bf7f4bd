//! Fields that name other entities.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Entity;

/// The id of an entity of type `T`, stored as text.
///
/// With `#[rivus(reference)]` on the field the schema watches over it: an `Option<Ref<T>>` shows none where the entity
/// is deleted or absent, and other answers can be chosen; see [the derive](derive@crate::Entity).
///
/// ```
/// use rivus::{Db, Entity, Ref};
///
/// #[derive(Entity)]
/// struct Project {
///     #[rivus(id)]
///     id: String,
///     name: String,
/// }
///
/// #[derive(Entity)]
/// struct Task {
///     #[rivus(id)]
///     id: String,
///     #[rivus(reference)]
///     project: Option<Ref<Project>>,
/// }
///
/// let db = Db::builder().entity::<Project>().entity::<Task>().memory()?;
/// let project = Project { id: "p1".into(), name: "garden".into() };
/// db.insert(&project)?;
/// db.insert(&Task { id: "t1".into(), project: Some(Ref::of(&project)) })?;
/// db.delete::<Project>("p1")?;
/// assert_eq!(db.get::<Task>("t1")?.and_then(|task| task.project), None);
/// # Ok::<(), rivus::Error>(())
/// ```
pub struct Ref<T> {
    id: String,
    of: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    /// Names the entity with this id, which need not be there.
    ///
    /// ```
    /// # struct Project;
    /// let project = rivus::Ref::<Project>::new("p1");
    /// assert_eq!(project.id(), "p1");
    /// ```
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), of: PhantomData }
    }

    /// The id that it names.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl<T: Entity> Ref<T> {
    /// Names this entity.
    #[must_use]
    pub fn of(entity: &T) -> Self {
        Self::new(entity.id())
    }
}

/// A field that names an entity: a [`Ref`], or an `Option` of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` names no entity",
    label = "a reference is a `Ref<T>` or an `Option<Ref<T>>`"
)]
pub trait Refers {
    /// The kind of what it names.
    const KIND: &'static str;
}

impl<T: Entity> Refers for Ref<T> {
    const KIND: &'static str = T::KIND;
}

impl<T: Refers> Refers for Option<T> {
    const KIND: &'static str = T::KIND;
}

// By hand: whether references can be compared or copied does not depend on what they name.

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self::new(self.id.clone())
    }
}

impl<T> Default for Ref<T> {
    fn default() -> Self {
        Self::new(String::new())
    }
}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<T> Eq for Ref<T> {}

impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ref").field(&self.id).finish()
    }
}

impl<T> fmt::Display for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

impl<T> AsRef<str> for Ref<T> {
    fn as_ref(&self) -> &str {
        &self.id
    }
}

impl<T> From<String> for Ref<T> {
    fn from(id: String) -> Self {
        Self::new(id)
    }
}

impl<T> From<&str> for Ref<T> {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

impl<T> From<Ref<T>> for String {
    fn from(reference: Ref<T>) -> Self {
        reference.id
    }
}

impl<T> Serialize for Ref<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.id.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Ref<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
