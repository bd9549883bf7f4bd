//! Why declarations make no schema.

use super::MARGIN_MS_MAX;

/// Why declarations make no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The text is no JSON or TOML, or not of the schema's form.
    #[error("the schema cannot be read: {0}")]
    Syntax(String),
    /// A name is empty or too long.
    #[error("{what} has a name of {bytes} bytes: use 1 to {bytes_max}")]
    NameLength {
        /// What bears the name.
        what: String,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        bytes_max: usize,
    },
    /// A kind is declared twice.
    #[error("kind `{kind}` is declared twice: remove one")]
    KindTwice {
        /// The kind.
        kind: String,
    },
    /// A field is declared twice.
    #[error("field `{field}` of kind `{kind}` is declared twice: remove one")]
    FieldTwice {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
    },
    /// A group is declared twice.
    #[error("group `{group}` of kind `{kind}` is declared twice: remove one")]
    GroupTwice {
        /// The kind.
        kind: String,
        /// The group.
        group: String,
    },
    /// A margin is beyond what stamps can tell.
    #[error(
        "field `{field}` of kind `{kind}` has a margin of {margin_ms} ms: use at most {MARGIN_MS_MAX}, or inf"
    )]
    MarginTooLong {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
        /// The margin.
        margin_ms: u64,
    },
    /// A group has no members.
    #[error("group `{group}` of kind `{kind}` is empty: name its fields, or remove it")]
    GroupEmpty {
        /// The kind.
        kind: String,
        /// The group.
        group: String,
    },
    /// A group names a field twice.
    #[error("group `{group}` of kind `{kind}` names `{member}` twice: remove one")]
    MemberTwice {
        /// The kind.
        kind: String,
        /// The group.
        group: String,
        /// The field.
        member: String,
    },
    /// A group names a field that is not declared.
    #[error(
        "group `{group}` of kind `{kind}` names `{member}`, which is no field of it: declare it as a value"
    )]
    MemberUndeclared {
        /// The kind.
        kind: String,
        /// The group.
        group: String,
        /// The field.
        member: String,
    },
    /// A group names a field that has a policy of its own.
    #[error(
        "group `{group}` of kind `{kind}` names `{member}`, which is \"{policy}\": make it a plain value, or take it out of the group"
    )]
    MemberNotPlain {
        /// The kind.
        kind: String,
        /// The group.
        group: String,
        /// The field.
        member: String,
        /// Its policy, in words.
        policy: String,
    },
    /// A field is in two groups.
    #[error("field `{member}` of kind `{kind}` is in the groups `{other}` and `{group}`: leave it in one")]
    MemberOfTwo {
        /// The kind.
        kind: String,
        /// The later group, by name.
        group: String,
        /// The earlier group, by name.
        other: String,
        /// The field.
        member: String,
    },
    /// A kind's `life` is no known policy.
    #[error("kind `{kind}` has the life `{word}`: use delete-wins, edit-revives or newest")]
    UnknownLife {
        /// The kind.
        kind: String,
        /// What is written.
        word: String,
    },
    /// A key of a field has a value that it cannot have.
    #[error("field `{field}` of kind `{kind}` has the {key} `{word}`: use {expected}")]
    UnknownWord {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
        /// The key.
        key: &'static str,
        /// What is written.
        word: String,
        /// What can be.
        expected: &'static str,
    },
    /// A field has a key that its type does not take.
    #[error(
        "field `{field}` of kind `{kind}` is a {ty} with `{key}`, which only a {owner} has: remove the key or change the type"
    )]
    KeyMisplaced {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
        /// Its type.
        ty: String,
        /// The key.
        key: &'static str,
        /// The type that takes the key.
        owner: &'static str,
    },
    /// A field needs a function, which text cannot hold.
    #[error("field `{field}` of kind `{kind}` is resolved by a function: declare this schema in Rust")]
    FunctionInText {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
    },
    /// What is said of a field beside its type cannot be kept.
    #[error("field `{field}` of kind `{kind}`: {why}")]
    FieldMark {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
        /// Why, and what to do.
        why: String,
    },
    /// A change of policy cannot be followed.
    #[error("migration `{name}` of kind `{kind}`: {why}")]
    Migration {
        /// The kind.
        kind: String,
        /// The migration.
        name: String,
        /// Why, and what to do.
        why: String,
    },
    /// The field that names the scope is no plain value.
    #[error("kind `{kind}` has the scope field `{field}`, which is no plain value of it: declare it as one")]
    ScopeNotPlain {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
    },
    /// A rule is declared twice.
    #[error("rule `{rule}` of kind `{kind}` is declared twice: name one otherwise")]
    RuleTwice {
        /// The kind.
        kind: String,
        /// The rule.
        rule: String,
    },
    /// A rule names a field that the kind does not have.
    #[error("rule `{rule}` of kind `{kind}` names `{field}`, which is no field of it: declare it")]
    RuleFieldUndeclared {
        /// The kind.
        kind: String,
        /// The rule.
        rule: String,
        /// The field.
        field: String,
    },
    /// A rule names a field that does not hold one value.
    #[error(
        "rule `{rule}` of kind `{kind}` names `{field}`, which is \"{ty}\": a rule needs a field of one value"
    )]
    RuleFieldType {
        /// The kind.
        kind: String,
        /// The rule.
        rule: String,
        /// The field.
        field: String,
        /// What it is.
        ty: String,
    },
    /// A rule's group does not say to which scope it belongs.
    #[error(
        "rule `{rule}` of kind `{kind}` has a group without the scope field `{scope}`: add it to the group"
    )]
    RuleScope {
        /// The kind.
        kind: String,
        /// The rule.
        rule: String,
        /// The field that names the scope.
        scope: String,
    },
    /// A rule that nothing can satisfy, or everything does.
    #[error("rule `{rule}` of kind `{kind}` cannot be kept: {why}")]
    RuleImpossible {
        /// The kind.
        kind: String,
        /// The rule.
        rule: String,
        /// Why.
        why: String,
    },
    /// A reference to a kind that is not declared.
    #[error("rule `{rule}` of kind `{kind}` refers to kind `{to}`, which is not declared: declare it")]
    RuleTarget {
        /// The kind.
        kind: String,
        /// The rule.
        rule: String,
        /// The kind referred to.
        to: String,
    },
    /// Two rules show the same otherwise.
    #[error("the rules `{one}` and `{other}` both own {what} of kind `{kind}`: leave it to one of them")]
    RulesOwnOne {
        /// The kind.
        kind: String,
        /// The field, or life.
        what: String,
        /// One rule.
        one: String,
        /// The other rule.
        other: String,
    },
    /// Rules read what each other show.
    #[error("the rules {rules} read what each other show, in a circle: let one of them read another field")]
    RulesCycle {
        /// The rules, with their kinds.
        rules: String,
    },
    /// A rule of a type that this version does not know.
    #[error("rule `{name}` of kind `{kind}` is a `{rule}`, which is unknown: use {known}")]
    UnknownRule {
        /// The kind.
        kind: String,
        /// The rule's type.
        rule: String,
        /// The rule's name.
        name: String,
        /// The known types.
        known: &'static str,
    },
    /// A rule lacks a key, has one of another type of rule, or a value that it cannot have.
    #[error("rule `{name}` of kind `{kind}`: {why}")]
    RuleKeys {
        /// The kind.
        kind: String,
        /// The rule's name.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
}
