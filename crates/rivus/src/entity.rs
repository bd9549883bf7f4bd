//! The bridge between an application's structs and what is stored.

use rivus_core::schema::KindBuilder;

use crate::{Error, Fields};

/// A struct that is stored as an entity. Derive it: `#[derive(Entity)]`.
///
/// [The derive](derive@crate::Entity) lists the settings of structs and fields. What it writes:
///
/// ```
/// use rivus::{Db, Entity, Error, Fields, KindBuilder};
///
/// struct Note {
///     id: String,
///     text: String,
///     views: i64,
/// }
///
/// impl Entity for Note {
///     const KIND: &'static str = "note";
///
///     fn declare(kind: KindBuilder) -> KindBuilder {
///         kind.value("text").counter("views")
///     }
///
///     fn id(&self) -> &str {
///         &self.id
///     }
///
///     fn read(id: String, fields: &mut Fields) -> Result<Self, Error> {
///         Ok(Self { id, text: fields.take("text")?, views: fields.take_counter("views")? })
///     }
///
///     fn write(&self, fields: &mut Fields) -> Result<(), Error> {
///         fields.put("text", &self.text)?;
///         fields.put_counter("views", self.views)
///     }
/// }
///
/// let db = Db::builder().entity::<Note>().memory()?;
/// db.insert(&Note { id: "n1".into(), text: "hello".into(), views: 2 })?;
/// assert_eq!(db.get::<Note>("n1")?.map(|note| note.views), Some(2));
/// # Ok::<(), Error>(())
/// ```
pub trait Entity: Sized {
    /// The kind's name.
    const KIND: &'static str;

    /// Declares the kind's fields and their policies.
    #[must_use]
    fn declare(kind: KindBuilder) -> KindBuilder;

    /// What identifies the entity within its kind.
    fn id(&self) -> &str;

    /// Makes the struct of what is stored.
    ///
    /// # Errors
    /// [`Error::Field`] if a field does not fit its type.
    fn read(id: String, fields: &mut Fields) -> Result<Self, Error>;

    /// Hands over the contents of all fields.
    ///
    /// # Errors
    /// [`Error::Field`] if a field cannot be stored.
    fn write(&self, fields: &mut Fields) -> Result<(), Error>;
}
