use super::*;

#[test]
fn covers_and_marks_read_as_they_were_written() {
    let cover = |table: &str, making| Cover {
        table: table.to_owned(),
        kind: "Task".to_owned(),
        fingerprint: u128::MAX - 1,
        seq: 77,
        making,
    };
    let mut covers = Covers::default();
    covers.put(cover("view_a", Making::Upto(None)));
    covers.put(cover("view_b", Making::Upto(Some("id".to_owned()))));
    covers.put(cover("view_a", Making::Done));
    assert_eq!(covers.0.len(), 2);
    assert_eq!(Covers::decode(&covers.encode()), Ok(covers.clone()));
    let bytes = covers.encode();
    for cut in 0..bytes.len() {
        assert!(Covers::decode(&bytes[..cut]).is_err());
    }
    assert_eq!(marked(&mark("kind", "id")), Some(("kind", "id")));
    assert_eq!(marked(&mark("", "")), Some(("", "")));
    assert_eq!(marked(COVERS_KEY), None);
}

#[test]
fn each_type_of_value_is_a_cell_of_its_own() {
    let of = |value: Value| Cell::of(&Shown::Value(value));
    assert_eq!(of(Value::Bool(true)), Cell::Int(1));
    assert_eq!(of(Value::Float(2.0)), Cell::Real(2.0));
    assert_eq!(of(Value::List(vec![Value::Null])), Cell::Text("[null]".to_owned()));
    assert_eq!(of(Value::Bytes(vec![1])), Cell::Bytes(vec![1]));
    let unknown = Value::Unknown { tag: 70_000, bytes: vec![1] };
    assert!(matches!(of(unknown), Cell::Text(json) if json.contains("$tag")));
    assert_eq!(Cell::of(&Shown::Counter(i128::MAX)), Cell::Text(i128::MAX.to_string()));
    assert_eq!(Cell::of(&Shown::Counter(-3)), Cell::Int(-3));
}

#[test]
fn a_kind_of_too_many_fields_has_no_table() {
    let wide = |k: crate::schema::KindBuilder| (0..=COLUMNS_MAX).fold(k, |k, n| k.value(format!("f{n}")));
    let schema = Schema::builder().kind("wide", wide).build().unwrap();
    let refused = Layout::new(&schema, &"wide".into());
    let fields = COLUMNS_MAX + 1;
    assert_eq!(refused, Err(ProjectionError::TooManyFields { kind: "wide".to_owned(), fields }));
}
