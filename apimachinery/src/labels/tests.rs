use proptest::prelude::*;
use serde_json::json;

use super::*;

fn matches(selector: &Selector, labels: &[(&str, &'static str)]) -> bool {
    selector.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, value)| *value))
}

#[test]
fn requirements_match_as_kubernetes_says() {
    let labels = [("app", "web"), ("tier", ""), ("rank", "5"), ("in", "notin")];
    for (selector, wanted) in [
        ("", true),
        ("app=web", true),
        ("app==web,tier=", true),
        ("app!=web", false),
        ("zone!=a", true),
        ("app in (db, web)", true),
        ("app notin (db)", true),
        ("zone notin (a)", true),
        ("app", true),
        ("!app", false),
        ("!zone", true),
        ("rank>4", true),
        ("rank>5", false),
        ("rank<5", false),
        ("rank < 6", true),
        ("app>1", false),
        ("zone<1", false),
        ("tier in ()", true),
        ("app in (,web)", true),
        ("app in (a,,b)", false),
        ("tier in (a,,b)", true),
        ("app=web, !zone", true),
        ("app=web,app=db", false),
        ("in in (notin)", true),
        ("in=notin", true),
        (" \t\r\napp\n=\tweb ", true),
    ] {
        assert_eq!(matches(&Selector::parse(selector).unwrap(), &labels), wanted, "{selector}");
    }
}

/// The right-hand side is what `k8s.io/apimachinery/pkg/labels` says of the left.
#[test]
fn selectors_are_refused_in_the_words_of_kubernetes() {
    for (selector, error) in [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("=x", "found '=', expected: !, identifier, or 'end of string'"),
        ("(a)", "found '(', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("a==(", "unable to parse requirement: found '(', expected: identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a notin", "unable to parse requirement: found '' expected: '('"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (b,", "unable to parse requirement: found '', expected: ',', or identifier"),
        (
            "/x=1",
            r#"unable to parse requirement: <nil>: Invalid value: "/x": prefix part must be non-empty"#,
        ),
        (
            "a>x",
            r#"unable to parse requirement: values[0]: Invalid value: "x": for 'Gt', 'Lt' operators, the value must be an integer"#,
        ),
        (
            "a>",
            r#"unable to parse requirement: values[0]: Invalid value: "": for 'Gt', 'Lt' operators, the value must be an integer"#,
        ),
        (
            "a=b/c",
            "unable to parse requirement: values[0][a]: Invalid value: \"b/c\": a valid label must be an empty \
             string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ] {
        assert_eq!(Selector::parse(selector).unwrap_err(), error, "{selector}");
    }
    // A bound is a label's value as well, and no value starts with a dash.
    assert!(Selector::parse("a>-5").unwrap_err().starts_with(
        r#"unable to parse requirement: values[0][a]: Invalid value: "-5": a valid label must"#
    ));
}

#[test]
fn an_object_selector_says_the_same() {
    let selector = json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "zone", "operator": "NotIn", "values": ["b", "a"]},
            {"key": "x", "operator": "Exists"},
            {"key": "w", "operator": "DoesNotExist", "values": []},
        ],
    });
    let selector = Selector::from_label_selector(&selector).unwrap();
    assert_eq!(selector.to_string(), "app=web,!w,x,zone notin (a,b)");
    assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    for everything in [json!({}), json!(null), json!({"matchLabels": {}, "matchExpressions": []})] {
        assert!(Selector::from_label_selector(&everything).unwrap().is_everything());
    }
}

#[test]
fn an_object_selector_that_cannot_be_read_selects_nothing_by_mistake() {
    let expression = |expression: Value| json!({"matchExpressions": [expression]});
    for (selector, error) in [
        (
            expression(json!({"key": "a", "operator": "Is"})),
            r#""Is" is not a valid label selector operator"#,
        ),
        (expression(json!({"key": "a"})), r#""" is not a valid label selector operator"#),
        (
            expression(json!({"key": "a", "operator": "In"})),
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
        ),
        (
            expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            r#"values: Invalid value: ["b"]: values set must be empty for exists and does not exist"#,
        ),
        (expression(json!({"key": "a", "operator": "In", "values": "b"})), "values is a list"),
        (
            expression(json!({"key": "a", "operator": "In", "values": [1]})),
            "a label's value is a string, not 1",
        ),
        (json!({"matchLabels": {"a": true}}), "a label's value is a string, not true"),
        (json!({"matchLabels": ["a"]}), "matchLabels is an object"),
        (json!({"matchExpressions": {}}), "matchExpressions is a list"),
        (json!("a=b"), "a label selector is an object"),
    ] {
        assert_eq!(Selector::from_label_selector(&selector).unwrap_err(), error, "{selector}");
    }
    let error = Selector::from_label_selector(&json!({"matchLabels": {"": "x y"}})).unwrap_err();
    assert!(
        error.starts_with("[key: Invalid value: \"\": name part must be non-empty; name part must"),
        "{error}"
    );
    assert!(error.contains("values[0][]: Invalid value: \"x y\": a valid label must"), "{error}");
}

fn a_requirement() -> impl Strategy<Value = String> {
    let key = "([a-z]{1,3}\\.[a-z]{1,3}/)?[A-Za-z]([-A-Za-z0-9_.]{0,4}[a-z0-9])?";
    let value = "([A-Za-z0-9]([-A-Za-z0-9_.]{0,4}[a-z0-9])?)?";
    let space = "[ \t]{0,2}";
    prop_oneof![
        (key, "=|==|!=", value)
            .prop_map(|(key, operator, value)| format!("{key}{operator}{value}")),
        (key, "in|notin", space, proptest::collection::vec(value, 0..4)).prop_map(
            |(key, operator, space, values)| {
                format!("{key} {operator}{space}({})", values.join(&format!(",{space}")))
            }
        ),
        (key, "<|>", 0i64..).prop_map(|(key, operator, bound)| format!("{key}{operator}{bound}")),
        ("!?", key).prop_map(|(not, key)| format!("{not}{key}")),
    ]
}

proptest! {
    #[test]
    fn any_selector_comes_back_as_it_was(terms in proptest::collection::vec(a_requirement(), 0..5)) {
        let selector = Selector::parse(&terms.join(",")).unwrap();
        prop_assert_eq!(&Selector::parse(&selector.to_string()).unwrap(), &selector);
        prop_assert_eq!(selector.is_everything(), terms.is_empty());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-z=!,() <>./-]{0,24}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(&Selector::parse(&selector.to_string()).unwrap(), &selector);
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,24}") {
        let _read = Selector::parse(&text);
    }

    #[test]
    fn a_selector_and_its_opposite_share_no_object(value in "[a-c]{0,1}", has in any::<bool>()) {
        let holds = |text: &str| Selector::parse(text).unwrap().matches(|_| has.then_some(value.as_str()));
        prop_assert_ne!(holds("k=a"), holds("k!=a"));
        prop_assert_ne!(holds("k in (a,b)"), holds("k notin (a,b)"));
        prop_assert_ne!(holds("k"), holds("!k"));
    }
}
