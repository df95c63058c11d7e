//! What `cargo xtask bench proxy` may be told.

use anyhow::{Context as _, Result, bail, ensure};

use super::peer::Peer;

/// How long to measure, and whom.
#[derive(Debug)]
pub(super) struct Options {
    /// Rounds; every figure printed is the median over them.
    pub(super) rounds: usize,
    /// Seconds of load per round and subject.
    pub(super) seconds: u32,
    /// Peers in the order they are measured.
    pub(super) peers: Vec<Peer>,
}

impl Options {
    /// Reads the arguments after `bench proxy`.
    ///
    /// # Errors
    ///
    /// Names the argument that is unknown, incomplete or out of range.
    pub(super) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { rounds: 5, seconds: 5, peers: Peer::ALL.to_vec() };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            let mut value = || args.next().with_context(|| format!("`{name}` lacks its value"));
            match name.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--only" => options.peers = value()?.split(',').map(Peer::named).collect::<Result<_>>()?,
                other => bail!("unknown argument `{other}`\n{}", super::USAGE),
            }
        }
        ensure!(options.rounds > 0 && options.seconds > 0, "at least one round of one second");
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn only_the_named_peers_are_measured_in_the_order_given() {
        let options = parse("--only envoy,nginx --rounds 2").expect("valid");
        assert_eq!(options.peers, [Peer::Envoy, Peer::Nginx]);
        assert_eq!(options.rounds, 2);
    }

    #[test]
    fn an_unknown_peer_is_refused_with_the_known_ones() {
        let error = parse("--only kong").expect_err("unknown").to_string();
        assert!(error.contains("kong") && error.contains("haproxy"), "{error}");
    }

    #[test]
    fn a_flag_without_its_value_is_refused() {
        assert!(parse("--rounds").is_err());
        assert!(parse("--rounds 0").is_err());
    }
}
