//! Files that change: by hand, by renaming, by swapped links; and changes that are no good.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A part that is the text of its two files, both of which must begin with the same letter.
fn part(folder: &Path) -> Part<String> {
    let source = Arc::new(Source { folder: folder.to_owned(), ..Source::named(Path::new("a.yaml")) });
    let file = |name| File::new(&source, name, name);
    let make = |contents: &[Content]| {
        let texts: Vec<_> = contents.iter().map(|content| String::from_utf8_lossy(content).into_owned()).collect();
        let same = texts[0].get(..1) == texts[1].get(..1);
        let value = texts.join("+");
        if same { Ok(Made { value, until: i64::MAX }) } else { Err(Problem::new(1, "it does not fit")) }
    };
    Part::load(
        (Owner::Listener("l".into()), Kind::Certificate, "pair"),
        vec![file("cert"), file("key")],
        Box::new(make),
    )
    .unwrap()
}

fn counts(part: &Part<String>) -> (u64, u64) {
    (part.shown.reloads.load(Ordering::Relaxed), part.shown.failures.load(Ordering::Relaxed))
}

/// Replaces a file by another in one step.
fn rename_over(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join("new"), text).unwrap();
    fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

#[test]
fn a_change_is_seen_by_its_content_however_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("cert"), "a1").unwrap();
    fs::write(path.join("key"), "a2").unwrap();
    let mut part = part(path);
    assert!(!part.poll());
    fs::write(path.join("cert"), "a1").unwrap();
    assert!(!part.poll(), "the same content is no change");
    fs::write(path.join("cert"), "a3").unwrap();
    assert!(part.poll());
    assert_eq!(part.good(), "a3+a2");
    rename_over(path, "key", "a4");
    assert!(part.poll());
    assert_eq!(part.good(), "a3+a4");
    assert_eq!(counts(&part), (2, 0));
}

#[test]
fn a_swapped_directory_link_is_seen_as_kubernetes_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (version, letter) in [("v1", "a"), ("v2", "b")] {
        fs::create_dir(path.join(version)).unwrap();
        fs::write(path.join(version).join("cert"), letter).unwrap();
        fs::write(path.join(version).join("key"), letter).unwrap();
    }
    symlink("v1", path.join("data")).unwrap();
    symlink("data/cert", path.join("cert")).unwrap();
    symlink("data/key", path.join("key")).unwrap();
    let mut part = part(path);
    symlink("v2", path.join("next")).unwrap();
    fs::rename(path.join("next"), path.join("data")).unwrap();
    assert!(part.poll());
    assert_eq!(part.good(), "b+b");
}

#[test]
fn what_does_not_fit_is_refused_once_and_only_when_it_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("cert"), "a").unwrap();
    fs::write(path.join("key"), "a").unwrap();
    let mut part = part(path);
    // Between the two writes of an honest change.
    rename_over(path, "cert", "b");
    assert!(!part.poll());
    rename_over(path, "key", "b");
    assert!(part.poll());
    assert_eq!((part.good().as_str(), counts(&part)), ("b+b", (1, 0)));
    rename_over(path, "key", "x");
    for _ in 0..4 {
        assert!(!part.poll());
    }
    assert_eq!((part.good().as_str(), counts(&part)), ("b+b", (1, 1)));
    fs::remove_file(path.join("key")).unwrap();
    for _ in 0..4 {
        assert!(!part.poll());
    }
    assert_eq!((part.good().as_str(), counts(&part)), ("b+b", (1, 2)));
    rename_over(path, "key", "b");
    assert!(!part.poll(), "it is what is in use");
    rename_over(path, "cert", "b2");
    assert!(part.poll());
    assert_eq!((part.good().as_str(), counts(&part)), ("b2+b", (2, 2)));
}
