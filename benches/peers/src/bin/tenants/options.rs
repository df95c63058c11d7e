//! What `cargo xtask bench tenants` may be told.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use crate::rig::Paths;

const USAGE: &str = "usage: tenants GATEWAY ORIGIN MODULES OUTPUT [--rounds N] [--swaps N] [--tenants FEW,SOME,MANY]
               [--only add|ready|swaps|density|cost|isolation|neighbour,…]";

/// A figure, or several of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    Add,
    Ready,
    Swaps,
    Density,
    Cost,
    Isolation,
    Neighbour,
}

impl Figure {
    const ALL: [Self; 7] =
        [Self::Add, Self::Ready, Self::Swaps, Self::Density, Self::Cost, Self::Isolation, Self::Neighbour];

    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Ready => "ready",
            Self::Swaps => "swaps",
            Self::Density => "density",
            Self::Cost => "cost",
            Self::Isolation => "isolation",
            Self::Neighbour => "neighbour",
        }
    }

    fn named(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|figure| figure.name() == name)
            .with_context(|| format!("`{name}` is no figure; these are: {}", known()))
    }
}

/// How much to measure, and what.
#[derive(Debug)]
pub(crate) struct Options {
    /// Rounds; every figure printed is the median over them.
    pub(crate) rounds: usize,
    /// Swaps of a module that are judged.
    pub(crate) swaps: usize,
    /// Numbers of tenants, from few to many.
    pub(crate) sizes: [usize; 3],
    pub(crate) figures: Vec<Figure>,
}

/// Reads the arguments.
///
/// # Errors
/// Names the argument that is unknown, incomplete or out of range.
pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<(Paths, Options)> {
    let mut path = || args.next().map(PathBuf::from).context(USAGE);
    let paths = Paths { gateway: path()?, origin: path()?, modules: path()?, output: path()? };
    let mut options = Options { rounds: 5, swaps: 10_000, sizes: [10, 1_000, 10_000], figures: Figure::ALL.to_vec() };
    while let Some(name) = args.next() {
        let mut value = || args.next().with_context(|| format!("`{name}` lacks its value"));
        match name.as_str() {
            "--rounds" => options.rounds = value()?.parse()?,
            "--swaps" => options.swaps = value()?.parse()?,
            "--tenants" => options.sizes = sizes(&value()?)?,
            "--only" => options.figures = value()?.split(',').map(Figure::named).collect::<Result<_>>()?,
            other => bail!("unknown argument `{other}`\n{USAGE}"),
        }
    }
    ensure!(options.rounds > 0 && options.swaps > 0, "at least one round, and one swap");
    Ok((paths, options))
}

fn sizes(text: &str) -> Result<[usize; 3]> {
    let sizes = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let sizes = <[usize; 3]>::try_from(sizes).ok().filter(|sizes| sizes.is_sorted() && !sizes.contains(&0));
    sizes.context("`--tenants` takes three numbers, from few to many")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options> {
        let args = format!("gateway origin modules output {line}");
        parse(args.split_whitespace().map(str::to_owned)).map(|(_, options)| options)
    }

    #[test]
    fn only_the_named_figures_are_measured() {
        let options = parsed("--only cost,add --tenants 1,2,3").expect("valid");
        assert_eq!((options.figures, options.sizes), (vec![Figure::Cost, Figure::Add], [1, 2, 3]));
    }

    #[test]
    fn an_unknown_figure_is_refused_with_the_known_ones() {
        let error = parsed("--only speed").expect_err("unknown").to_string();
        assert!(error.contains("speed") && error.contains("neighbour"), "{error}");
    }

    #[test]
    fn sizes_are_three_and_grow() {
        for line in ["--tenants 1,2", "--tenants 3,2,1", "--tenants 0,1,2", "--tenants", "--rounds 0"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
