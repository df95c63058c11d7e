use super::*;

fn request(headers: &[(&str, &str)]) -> Credentials {
    Credentials::new(headers.iter().copied().collect())
}

fn everywhere() -> Places {
    Places { header: None, cookie: Some("session".to_owned()), query: Some("access_token".to_owned()) }
}

#[test]
fn a_token_is_found_in_one_place_only() {
    for (headers, want) in [
        (vec![], Ok(None)),
        (vec![("authorization", "Bearer t")], Ok(Some(&b"t"[..]))),
        (vec![("authorization", "Basic t")], Ok(None)),
        (vec![("authorization", "bearer")], Err(Refusal::Malformed)),
        (vec![("authorization", "Bearer t"), ("authorization", "Bearer t")], Err(Refusal::Twice)),
        (vec![("cookie", "a=b; session=t; c=d")], Ok(Some(&b"t"[..]))),
        (vec![("cookie", "session=t; session=u")], Err(Refusal::Twice)),
        (vec![("cookie", "session=t"), ("cookie", "session=u")], Err(Refusal::Twice)),
        (vec![(":path", "/a?b=c&access_token=t#f")], Ok(Some(&b"t"[..]))),
        (vec![(":path", "/a?access_token=t&access_token=u")], Err(Refusal::Twice)),
        (vec![("authorization", "Bearer t"), ("cookie", "session=t")], Err(Refusal::Twice)),
        (vec![("authorization", "Bearer t"), (":path", "/?access_token=t")], Err(Refusal::Twice)),
    ] {
        assert_eq!(request(&headers).token(&everywhere()), want, "{headers:?}");
    }
    let elsewhere = request(&[("cookie", "session=t"), (":path", "/?access_token=t")]);
    assert_eq!(elsewhere.token(&Places::default()), Ok(None), "other places are off unless asked for");
}

#[test]
fn a_credential_is_taken_out_and_nothing_else() {
    let taken =
        request(&[("cookie", "a=b; session=t; c=d"), (":path", "/p?x=1&access_token=t&y")]).without(&everywhere());
    assert_eq!(
        taken,
        [("cookie".to_owned(), Some("a=b; c=d".to_owned())), (":path".to_owned(), Some("/p?x=1&y".to_owned()))]
    );
    let alone = request(&[("cookie", "session=t"), (":path", "/p?access_token=t")]).without(&everywhere());
    assert_eq!(alone, [("cookie".to_owned(), None), (":path".to_owned(), Some("/p".to_owned()))]);
    assert_eq!(request(&[(":path", "/p")]).without(&everywhere()), []);
}
