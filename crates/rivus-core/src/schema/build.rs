//! Building a schema in Rust, and the checks that every schema passes.

use super::mark::{self, Mark, OnConflict, Writers};
use super::migration::{self, Migration};
use super::policy::{Candidate, CustomResolver, FieldType, Life, Margin, Resolver, SetWins};
use super::rule::{
    self, AtMostOne, Bound, Custom, Expr, OnClash, OnGone, OrderTime, Reference, Rule, RuleType, Side, Unique,
};
use super::{
    Declared, FIELD_NAME_BYTES_MAX, Field, Group, KIND_NAME_BYTES_MAX, Kind, MARGIN_MS_MAX, Marks, Schema,
    SchemaError,
};
use crate::rules::{CustomRule, Rules};
use crate::value::Value;

/// A schema in the making; see [`Schema::builder`].
#[derive(Clone, Debug, Default)]
pub struct SchemaBuilder {
    kinds: Vec<KindBuilder>,
    open: bool,
    epoch: u32,
}

impl SchemaBuilder {
    /// Declares the kind `name`, as `declare` describes it.
    #[must_use]
    pub fn kind(self, name: impl Into<String>, declare: impl FnOnce(KindBuilder) -> KindBuilder) -> Self {
        self.push(declare(KindBuilder::new(name.into())))
    }

    /// Takes undeclared kinds too, each as an open kind with the default policies.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Says which version of the rules this is; see [`Schema::epoch`]. Count it up with every change of a rule.
    #[must_use]
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.epoch = epoch;
        self
    }

    /// Checks the declarations and makes the schema.
    ///
    /// # Errors
    /// [`SchemaError`], naming the kind and field of the first declaration that does not hold.
    pub fn build(self) -> Result<Schema, SchemaError> {
        let mut kinds = self.kinds.into_iter().map(KindBuilder::build).collect::<Result<Vec<_>, _>>()?;
        kinds.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(kind) = repeated(kinds.iter().map(|k| &k.name)) {
            return Err(SchemaError::KindTwice { kind });
        }
        let strata = rule::order(&kinds, self.open)?;
        let rules = Rules::new(&kinds, &strata);
        let marks = kinds.iter().fold(Marks::default(), |all, kind| all.or(kind.marks));
        let any = self.open.then(Kind::undeclared);
        Ok(Schema { kinds, any, epoch: self.epoch, rules, fingerprint: std::sync::OnceLock::new(), marks })
    }

    pub(super) fn push(mut self, kind: KindBuilder) -> Self {
        self.kinds.push(kind);
        self
    }
}

/// A kind in the making; see [`SchemaBuilder::kind`].
#[derive(Clone, Debug)]
pub struct KindBuilder {
    name: String,
    life: Life,
    open: bool,
    aliases: bool,
    fields: Vec<Field>,
    groups: Vec<Group>,
    scope: Option<String>,
    rules: Vec<Rule>,
    marks: Vec<(String, Mark)>,
    migrations: Vec<Migration>,
}

impl KindBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            life: Life::default(),
            open: false,
            aliases: false,
            fields: Vec::new(),
            groups: Vec::new(),
            scope: None,
            rules: Vec::new(),
            marks: Vec::new(),
            migrations: Vec::new(),
        }
    }

    /// Sets how deletes and edits merge; without it, deletes win.
    #[must_use]
    pub fn life(mut self, life: Life) -> Self {
        self.life = life;
        self
    }

    /// Takes undeclared fields too, as plain values.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Lets entities of the kind stand for each other ([`Action::Alias`](crate::edit::Action::Alias)). Every read and
    /// edit of the kind then looks for that first.
    #[must_use]
    pub fn aliases(mut self) -> Self {
        self.aliases = true;
        self
    }

    /// Declares a field of any type.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, ty: FieldType) -> Self {
        self.fields.push(Field::new(name, ty));
        self
    }

    /// Declares a plain value: margin 0, the newest wins.
    #[must_use]
    pub fn value(self, name: impl Into<String>) -> Self {
        self.field(name, FieldType::PLAIN)
    }

    /// Declares a value with a margin and the resolver of those within it.
    #[must_use]
    pub fn value_with(self, name: impl Into<String>, margin: Margin, resolver: Resolver) -> Self {
        self.field(name, FieldType::Value { margin, resolver })
    }

    /// Declares a value with a margin that the pure function `f` resolves; peers know it as `resolver`.
    #[must_use]
    pub fn resolver(
        self,
        name: impl Into<String>,
        margin: Margin,
        resolver: impl Into<String>,
        f: impl Fn(&[Candidate<'_>]) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.value_with(name, margin, Resolver::Custom(CustomResolver::new(resolver, f)))
    }

    /// Declares a field whose concurrent values the pure function `f` folds; peers know it as `fold`.
    #[must_use]
    pub fn custom(
        self,
        name: impl Into<String>,
        fold: impl Into<String>,
        f: impl Fn(&[Candidate<'_>]) -> Value + Send + Sync + 'static,
    ) -> Self {
        let resolver = Resolver::Custom(CustomResolver::new(fold, f));
        self.field(name, FieldType::Custom { resolver })
    }

    /// Declares a field that shows all concurrent values.
    #[must_use]
    pub fn multi(self, name: impl Into<String>) -> Self {
        self.field(name, FieldType::Multi)
    }

    /// Declares a set in which an add wins over a concurrent remove.
    #[must_use]
    pub fn set(self, name: impl Into<String>) -> Self {
        self.set_with(name, SetWins::Add)
    }

    /// Declares a set, saying which of a concurrent add and remove wins.
    #[must_use]
    pub fn set_with(self, name: impl Into<String>, wins: SetWins) -> Self {
        self.field(name, FieldType::Set { wins })
    }

    /// Declares a map.
    #[must_use]
    pub fn map(self, name: impl Into<String>) -> Self {
        self.field(name, FieldType::Map)
    }

    /// Declares a counter.
    #[must_use]
    pub fn counter(self, name: impl Into<String>) -> Self {
        self.field(name, FieldType::Counter)
    }

    /// Declares a field that shows the greatest concurrent value.
    #[must_use]
    pub fn max(self, name: impl Into<String>) -> Self {
        self.field(name, FieldType::Max)
    }

    /// Declares a field that shows the least concurrent value.
    #[must_use]
    pub fn min(self, name: impl Into<String>) -> Self {
        self.field(name, FieldType::Min)
    }

    /// Declares a field that is true if any concurrent value is.
    #[must_use]
    pub fn flag(self, name: impl Into<String>) -> Self {
        self.field(name, FieldType::Flag)
    }

    /// Joins plain values, which are declared too (before or after), into one register.
    #[must_use]
    pub fn group<M: Into<String>>(
        mut self,
        name: impl Into<String>,
        members: impl IntoIterator<Item = M>,
    ) -> Self {
        let members = members.into_iter().map(Into::into).collect();
        self.groups.push(Group { name: name.into(), members });
        self
    }

    /// Lets only the authority, and replicas that it has granted a rank above 0, write a declared field: others get
    /// an error, and a hub refuses their edits.
    #[must_use]
    pub fn ranked(self, field: impl Into<String>) -> Self {
        self.mark(field, Mark::Writers(Writers::Ranked))
    }

    /// Has a replica write its value of a declared field again, as a new edit, when it has lost to a concurrent one.
    /// The field needs a margin, within which that can be told, and the resolver newest.
    #[must_use]
    pub fn restamp(self, field: impl Into<String>) -> Self {
        self.mark(field, Mark::OnConflict(OnConflict::Restamp))
    }

    /// Says that a declared field was called `was` before. Where nothing is held under the new name, what is held
    /// under the old one shows; it is written under the new one.
    #[must_use]
    pub fn renamed(self, field: impl Into<String>, was: impl Into<String>) -> Self {
        self.mark(field, Mark::Was(was.into()))
    }

    /// Says what a declared field shows where nothing is held.
    #[must_use]
    pub fn default_value(self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.mark(field, Mark::Default(value.into()))
    }

    fn mark(mut self, field: impl Into<String>, mark: Mark) -> Self {
        self.marks.push((field.into(), mark));
        self
    }

    /// Declares a change of policy, of a field or (`None`) of the kind's life, from one policy to another, in the words
    /// of [`Schema::policies`]. A store that was last opened under the first is taken; one that merged in yet another
    /// way is refused. Keep older ones: a device may have slept through them.
    #[must_use]
    pub fn migration(
        mut self,
        name: impl Into<String>,
        field: Option<&str>,
        from: impl Into<String>,
        to: impl Into<String>,
    ) -> Self {
        let (name, field) = (name.into(), field.map(str::to_owned));
        self.migrations.push(Migration { name, field, from: from.into(), to: to.into() });
        self
    }

    /// Says which field names the scope of an entity: what is synchronised and permitted together. A plain value of
    /// the kind; the group of every rule has to contain it.
    #[must_use]
    pub fn scope(mut self, field: impl Into<String>) -> Self {
        self.scope = Some(field.into());
        self
    }

    /// Declares a rule; see [`RuleType`].
    #[must_use]
    pub fn rule(mut self, name: impl Into<String>, what: RuleType) -> Self {
        self.rules.push(Rule { name: name.into(), what });
        self
    }

    /// Of the entities with equal values in the fields `group` at most one shows null in `open`: the last that was
    /// opened. Those before it show what their successor holds in `order`.
    ///
    /// ```
    /// # use rivus_core::schema::{Schema, SchemaError};
    /// let schema = Schema::builder().kind("time_entry", |k| {
    ///     k.value("user").value("start").value("stop").at_most_one("one running", ["user"], "stop", "start")
    /// });
    /// # schema.build()?;
    /// # Ok::<(), SchemaError>(())
    /// ```
    #[must_use]
    pub fn at_most_one<F: Into<String>>(
        self,
        name: impl Into<String>,
        group: impl IntoIterator<Item = F>,
        open: impl Into<String>,
        order: impl Into<String>,
    ) -> Self {
        self.rule(name, at_most_one(group, open, order, OrderTime::Any))
    }

    /// As [`KindBuilder::at_most_one`], where `order` holds milliseconds since 1970.
    #[must_use]
    pub fn at_most_one_ms<F: Into<String>>(
        self,
        name: impl Into<String>,
        group: impl IntoIterator<Item = F>,
        open: impl Into<String>,
        order: impl Into<String>,
    ) -> Self {
        self.rule(name, at_most_one(group, open, order, OrderTime::Ms))
    }

    /// Of the entities with equal values in the fields `group` no two show the same in `field`: later ones show it
    /// with `#` and the beginning of a hash of their id.
    #[must_use]
    pub fn unique<F: Into<String>>(
        self,
        name: impl Into<String>,
        group: impl IntoIterator<Item = F>,
        field: impl Into<String>,
    ) -> Self {
        self.unique_with(name, group, field, OnClash::Rename)
    }

    /// As [`KindBuilder::unique`], saying what becomes of later ones.
    #[must_use]
    pub fn unique_with<F: Into<String>>(
        self,
        name: impl Into<String>,
        group: impl IntoIterator<Item = F>,
        field: impl Into<String>,
        on_clash: OnClash,
    ) -> Self {
        let group = group.into_iter().map(Into::into).collect();
        self.rule(name, RuleType::Unique(Unique { group, field: field.into(), on_clash }))
    }

    /// The field holds the id of an entity of the kind `to`; says what shows where that is deleted or absent.
    #[must_use]
    pub fn reference(
        self,
        name: impl Into<String>,
        field: impl Into<String>,
        to: impl Into<String>,
        on_gone: OnGone,
    ) -> Self {
        let (field, to) = (field.into(), to.into());
        self.rule(name, RuleType::Reference(Reference { field, to, on_gone }))
    }

    /// The field shows nothing below `min` or above `max`.
    #[must_use]
    pub fn bound(
        self,
        name: impl Into<String>,
        field: impl Into<String>,
        min: impl Into<Option<Value>>,
        max: impl Into<Option<Value>>,
    ) -> Self {
        let (min, max) = (min.into(), max.into());
        self.rule(name, RuleType::Bound(Bound { field: field.into(), min, max }))
    }

    /// The field shows nothing on the wrong side of the field `other` of the same entity.
    #[must_use]
    pub fn expr(
        self,
        name: impl Into<String>,
        field: impl Into<String>,
        side: Side,
        other: impl Into<String>,
    ) -> Self {
        self.rule(name, RuleType::Expr(Expr { field: field.into(), side, other: other.into() }))
    }

    /// Declares a rule of the application's own.
    #[must_use]
    pub fn custom_rule(self, name: impl Into<String>, rule: impl CustomRule + 'static) -> Self {
        self.rule(name, RuleType::Custom(Custom(std::sync::Arc::new(rule))))
    }

    fn build(self) -> Result<Kind, SchemaError> {
        let Self {
            name: kind,
            life,
            open,
            aliases,
            mut fields,
            mut groups,
            scope,
            mut rules,
            marks,
            migrations,
        } = self;
        check_name("a kind", &kind, KIND_NAME_BYTES_MAX)?;
        for field in &fields {
            check_name(&format!("a field of kind `{kind}`"), &field.name, FIELD_NAME_BYTES_MAX)?;
            check_policy(&kind, field)?;
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(field) = repeated(fields.iter().map(|f| &f.name)) {
            return Err(SchemaError::FieldTwice { kind, field });
        }
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(group) = repeated(groups.iter().map(|g| &g.name)) {
            return Err(SchemaError::GroupTwice { kind, group });
        }
        let mut fields: Vec<_> = fields.into_iter().map(|field| Declared { field, group: None }).collect();
        for at in 0..groups.len() {
            join_group(&kind, &mut fields, &mut groups, at)?;
        }
        mark::put_on(&kind, &mut fields, marks)?;
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        for rule in &rules {
            check_name(&format!("a rule of kind `{kind}`"), &rule.name, KIND_NAME_BYTES_MAX)?;
        }
        if let Some(rule) = repeated(rules.iter().map(|r| &r.name)) {
            return Err(SchemaError::RuleTwice { kind, rule });
        }
        let kind = Kind { aliases, scope, rules, migrations, ..Kind::new(kind, life, open, fields, groups) };
        if let Some(scope) = &kind.scope
            && !matches!(kind.slot(scope), super::Slot::Field(field) if field.ty == FieldType::PLAIN)
        {
            return Err(SchemaError::ScopeNotPlain { kind: kind.name, field: scope.clone() });
        }
        rule::check(&kind)?;
        migration::check(&kind)?;
        Ok(kind)
    }
}

/// Checks the group at position `at`, sorts its members and marks them as its own.
fn join_group(
    kind: &str,
    fields: &mut [Declared],
    groups: &mut [Group],
    at: usize,
) -> Result<(), SchemaError> {
    let (before, rest) = groups.split_at_mut(at);
    let Some(group) = rest.first_mut() else { return Ok(()) };
    check_name(&format!("a group of kind `{kind}`"), &group.name, FIELD_NAME_BYTES_MAX)?;
    let kind = kind.to_owned();
    if group.members.is_empty() {
        return Err(SchemaError::GroupEmpty { kind, group: group.name.clone() });
    }
    group.members.sort();
    if let Some(member) = repeated(group.members.iter()) {
        return Err(SchemaError::MemberTwice { kind, group: group.name.clone(), member });
    }
    for member in &group.members {
        let (group, member) = (group.name.clone(), member.clone());
        let Some(declared) = fields.iter_mut().find(|d| d.field.name == member) else {
            return Err(SchemaError::MemberUndeclared { kind, group, member });
        };
        if declared.field.ty != FieldType::PLAIN {
            let policy = declared.field.ty.to_string();
            return Err(SchemaError::MemberNotPlain { kind, group, member, policy });
        }
        if let Some(other) = declared.group.and_then(|other| before.get(other)) {
            return Err(SchemaError::MemberOfTwo { kind, group, other: other.name.clone(), member });
        }
        declared.group = Some(at);
    }
    Ok(())
}

fn check_policy(kind: &str, field: &Field) -> Result<(), SchemaError> {
    match field.ty.margin() {
        Margin::Ms(margin_ms) if margin_ms > MARGIN_MS_MAX => {
            return Err(SchemaError::MarginTooLong {
                kind: kind.to_owned(),
                field: field.name.clone(),
                margin_ms,
            });
        }
        _ => {}
    }
    match &field.ty {
        FieldType::Value { resolver: Resolver::Custom(custom), .. }
        | FieldType::Custom { resolver: Resolver::Custom(custom) } => {
            let what = format!("the resolver of field `{}` of kind `{kind}`", field.name);
            check_name(&what, &custom.name, KIND_NAME_BYTES_MAX)
        }
        _ => Ok(()),
    }
}

fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), SchemaError> {
    if (1..=bytes_max).contains(&name.len()) {
        return Ok(());
    }
    Err(SchemaError::NameLength { what: what.to_owned(), bytes: name.len(), bytes_max })
}

/// The first name that equals the one before it.
fn repeated<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let mut last = None;
    for name in names {
        if last.replace(name) == Some(name) {
            return Some(name.clone());
        }
    }
    None
}
fn at_most_one<F: Into<String>>(
    group: impl IntoIterator<Item = F>,
    open: impl Into<String>,
    order: impl Into<String>,
    time: OrderTime,
) -> RuleType {
    let group = group.into_iter().map(Into::into).collect();
    RuleType::AtMostOne(AtMostOne { group, open: open.into(), order: order.into(), time })
}
