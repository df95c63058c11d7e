//! What is said about text that is not YAML, or more of it than is read.
#![allow(clippy::too_many_lines, reason = "what makes them long is the text that operators read, whole")]

use std::path::Path;

use expect_test::expect;

use super::{BASE, check, from_text};

#[test]
fn text_that_is_not_yaml_is_reported_where_reading_stops() {
    check(
        "version: 1\nlisteners: [\nupstreams: {}\n",
        &expect![[r#"
        error: `gateway.yaml` is not valid YAML
          ┌ gateway.yaml:3:1
        3 │ upstreams: {}
          │ ^ invalid indentation
          = help: is a bracket, brace or quote above not closed?

    "#]],
    );
    check(
        "version: 1\n  listeners: {}\n",
        &expect![[r#"
        error: `gateway.yaml` is not valid YAML
          ┌ gateway.yaml:2:12
        2 │   listeners: {}
          │            ^ mapping values are not allowed in this context
          = help: a value that contains `: ` needs quotes, and keys of one mapping begin in one column

    "#]],
    );
    check(
        "a:\n\tb: 1\n",
        &expect![[r#"
        error: `gateway.yaml` is not valid YAML
          ┌ gateway.yaml:2:2
        2 │ 	b: 1
          │ 	^ tabs disallowed within this context (block indentation)
          = help: indent with spaces

    "#]],
    );
    check(
        "a: @b\n",
        &expect![[r#"
        error: `gateway.yaml` is not valid YAML
          ┌ gateway.yaml:1:4
        1 │ a: @b
          │    ^ unexpected character: `@'
          = help: a value that begins with this character needs quotes

    "#]],
    );
    check(
        "a: *b\n",
        &expect![[r#"
        error: `gateway.yaml` is not valid YAML
          ┌ gateway.yaml:1:4
        1 │ a: *b
          │    ^ while parsing node, found unknown anchor
          = help: define it earlier with `&name`, or put a `*` in quotes

    "#]],
    );
    check(
        "a: 1\n---\nb: 2\n",
        &expect![[r#"
        error: a second document begins here
          ┌ gateway.yaml:2:1
        2 │ ---
          │ ^^^ one file holds one document
          = help: put it into a file of its own and name both files, or their directory

    "#]],
    );
    check(
        "a: { <<: b }\n",
        &expect![[r#"
        error: merge keys (`<<`) are not supported
          ┌ gateway.yaml:1:6
        1 │ a: { <<: b }
          │      ^^
          = help: `policies:` share filters, and an alias (`*name`) repeats a whole value

    "#]],
    );
    check(
        "? [a]\n: b\n",
        &expect![[r#"
        error: a key is a string
          ┌ gateway.yaml:1:3
        1 │ ? [a]
          │   ^ this is not one

    "#]],
    );
}

#[test]
fn a_key_written_twice_is_reported_with_both_places() {
    check(
        &format!(
            "{BASE}routes:\n  - name: a\n    name: b\n    match: {{ path: / }}\n    upstream: origin\nversion: 1\n"
        ),
        &expect![[r#"
            error: `name` is defined twice
              ┌ gateway.yaml:6:5
            6 │     name: b
              │     ^^^^ defined again here
              ┌ gateway.yaml:5:5
            5 │   - name: a
              │     ^^^^ first defined here
              = help: remove or rename one of them

            error: `version` is defined twice
              ┌ gateway.yaml:9:1
            9 │ version: 1
              │ ^^^^^^^ defined again here
              ┌ gateway.yaml:1:1
            1 │ version: 1
              │ ^^^^^^^ first defined here
              = help: remove or rename one of them

        "#]],
    );
}

#[test]
fn tags_are_refused() {
    check(
        &format!("{BASE}routes: !secret []\n"),
        &expect![[r#"
        error: the YAML tag `secret` means nothing here
          ┌ gateway.yaml:4:9
        4 │ routes: !secret []
          │         ^^^^^^^^^^
          = help: quote a value to make it a string

    "#]],
    );
}

#[test]
fn aliases_cannot_make_a_small_file_large_nor_lists_bury_the_reader() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    let said = from_text(Path::new("bomb.yaml"), &bomb).unwrap_err();
    assert!(said[0].message.contains("more than 100000 values"), "{}", said[0]);
    let deep = format!("a: {}\n", "[".repeat(100));
    let said = from_text(Path::new("deep.yaml"), &deep).unwrap_err();
    assert!(said[0].message.contains("nested more than 64 deep"), "{}", said[0]);
}
