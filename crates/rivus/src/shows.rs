//! Which types of fields can show what rules show in them.

/// A field in which a `unique` rule can show another name: text.
///
/// The derive refuses others:
///
/// ```compile_fail,E0277
/// #[derive(rivus::Entity)]
/// struct Seat { #[rivus(id)] id: String, #[rivus(unique())] name: i64 }
/// ```
///
/// ```
/// #[derive(rivus::Entity)]
/// struct Seat { #[rivus(id)] id: String, #[rivus(unique())] name: String }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot show the name that `unique` makes, which is text",
    label = "make it a `String` or an `Option<String>`, or choose `on_clash = alias`"
)]
pub trait ShowsText {}

impl ShowsText for String {}
impl ShowsText for Box<str> {}
impl ShowsText for std::sync::Arc<str> {}
impl ShowsText for std::borrow::Cow<'static, str> {}
impl<T: ShowsText> ShowsText for Option<T> {}

/// A field that is none while an entity is open, in which `at_most_one` can show a value of the order field.
///
/// The derive refuses others:
///
/// ```compile_fail,E0277
/// #[derive(rivus::Entity)]
/// #[rivus(at_most_one(group = user, while_none = stop, order = start))]
/// struct Entry { #[rivus(id)] id: String, user: String, start: f64, stop: Option<i64> }
/// ```
///
/// ```
/// #[derive(rivus::Entity)]
/// #[rivus(at_most_one(group = user, while_none = stop, order = start))]
/// struct Entry { #[rivus(id)] id: String, user: String, start: i64, stop: Option<i64> }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot show the end that `at_most_one` makes, which is a `{Order}`",
    label = "the rule shows in it what the order field of another entity holds: make it an `Option` of that type"
)]
pub trait ShowsEnd<Order> {}

impl<T> ShowsEnd<T> for Option<T> {}
impl<T> ShowsEnd<Self> for Option<T> {}

/// A field that holds milliseconds since 1970.
///
/// The derive refuses others:
///
/// ```compile_fail,E0277
/// #[derive(rivus::Entity)]
/// #[rivus(at_most_one(group = user, while_none = stop, order = start, time = ms))]
/// struct Entry { #[rivus(id)] id: String, user: String, start: String, stop: Option<i64> }
/// ```
///
/// ```
/// #[derive(rivus::Entity)]
/// #[rivus(at_most_one(group = user, while_none = stop, order = start, time = ms))]
/// struct Entry { #[rivus(id)] id: String, user: String, start: u64, stop: Option<u64> }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not hold milliseconds",
    label = "with `time = ms` the order field and the end are integers, such as `i64` and `Option<i64>`"
)]
pub trait ShowsMillis {}

impl ShowsMillis for i64 {}
impl ShowsMillis for u64 {}
impl ShowsMillis for i128 {}
impl ShowsMillis for u128 {}
impl<T: ShowsMillis> ShowsMillis for Option<T> {}
