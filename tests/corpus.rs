//! Every fuzz target over its seeds: what it checks is tried with every toolchain, whether that can fuzz or not.
#![allow(clippy::unwrap_used, reason = "what cannot go on in a test panics")]
#![allow(unreachable_pub, reason = "the targets are public in the crate of the fuzzers")]

#[path = "fuzz/src/configuration.rs"]
mod configuration;
#[path = "fuzz/src/frames.rs"]
mod frames;
#[path = "fuzz/src/heads.rs"]
mod heads;
#[path = "fuzz/src/modules.rs"]
mod modules;
#[path = "fuzz/src/pairs.rs"]
mod pairs;
#[path = "fuzz/src/paths.rs"]
mod paths;
#[path = "fuzz/src/proxied.rs"]
mod proxied;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

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

/// Numbers that look like chance and are the same every time (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Lines of what operators write, put together anew. A changed byte seldom gets as far as what names mean; these do. libFuzzer
/// goes further, but needs a build of the whole server with instruments.
#[test]
fn configurations_made_of_pieces_of_others_hold() {
    const ROUNDS: u64 = 2000;
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/configuration");
    let mut files: Vec<_> = fs::read_dir(seeds).unwrap().map(|seed| seed.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let pool: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
    assert!(pool.len() > 50, "there are too few pieces");
    for round in 1..=ROUNDS {
        let mut dice = Dice(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut lines: Vec<String> = texts.get(dice.below(texts.len())).unwrap().lines().map(str::to_owned).collect();
        for _ in 0..=dice.below(6) {
            let at = dice.below(lines.len() + 1);
            let piece = *pool.get(dice.below(pool.len())).unwrap();
            match dice.below(4) {
                0 if at < lines.len() => _ = lines.remove(at),
                // As deep as what stands there, so that it fits more often than not.
                1 => {
                    let depth = lines.get(at).map_or(0, |line| line.len() - line.trim_start().len());
                    lines.insert(at, " ".repeat(depth) + piece.trim_start());
                }
                2 => lines.insert(at, piece.to_owned()),
                _ => {
                    let part = lines.iter().skip(at).take(dice.below(5)).cloned().collect::<Vec<_>>();
                    lines.extend(part);
                }
            }
        }
        configuration::configuration((lines.join("\n") + "\n").as_bytes());
    }
}

/// Row 15 of the threat model: what `fuzz/src/modules.rs` says holds for so many random modules, or as many as there is time for.
#[test]
fn modules_made_up_at_random_hurt_only_themselves() {
    const ENOUGH: usize = 200;
    const TIME: Duration = Duration::from_secs(10);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (began, mut tried, mut loaded) = (Instant::now(), 0, 0);
    while tried < ENOUGH && (began.elapsed() < TIME || tried == 0) {
        let bytes: Vec<u8> = (0..4096).map(|_| dice.byte()).collect();
        println!("{tried}: {:02x?}…", bytes.get(..8).unwrap());
        tried += 1;
        loaded += usize::from(modules::runs(&bytes));
        // The target itself, as the fuzzer has it, on what is cut short.
        modules::modules(bytes.get(..300).unwrap());
    }
    println!("{loaded} of {tried} were run");
    assert!(loaded * 2 > tried, "most are no modules that could be run");
}
