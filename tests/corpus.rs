//! Every fuzz target over its seeds: what it checks is tried with every toolchain, whether that can fuzz or not.
#![allow(clippy::unwrap_used, reason = "what cannot go on in a test panics")]
#![allow(unreachable_pub, reason = "the targets are public in the crate of the fuzzers")]

#[path = "fuzz/src/configuration.rs"]
mod configuration;
#[path = "fuzz/src/frames.rs"]
mod frames;
#[path = "fuzz/src/heads.rs"]
mod heads;
#[path = "fuzz/src/pairs.rs"]
mod pairs;
#[path = "fuzz/src/paths.rs"]
mod paths;
#[path = "fuzz/src/proxied.rs"]
mod proxied;

use std::fs;
use std::path::Path;

/// A target with the name of its seeds.
type Target = (&'static str, fn(&[u8]));

/// The fuzzers are a workspace of their own, so their files are shared, not their crate.
const TARGETS: [Target; 6] = [
    ("configuration", configuration::configuration),
    ("frames", frames::frames),
    ("heads", heads::heads),
    ("pairs", pairs::pairs),
    ("paths", paths::paths),
    ("proxied", proxied::proxied),
];

#[test]
fn every_seed_of_every_target_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let seeds: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|seed| seed.unwrap().path()).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            println!("{}", seed.display());
            let bytes = fs::read(&seed).unwrap();
            target(&bytes);
            // Whatever a client or a guest sends may also end anywhere, or have a byte changed on the way.
            for cut in 0..bytes.len().min(512) {
                target(bytes.get(..cut).unwrap());
                let mut changed = bytes.clone();
                *changed.get_mut(cut).unwrap() ^= 0x20;
                target(&changed);
            }
        }
    }
}
