//! Which call waits for which: a graph without cycles.

/// A cycle, by the names of its calls.
///
/// # Errors
/// Names the calls of a cycle, each waiting for the next.
pub(crate) fn acyclic(names: &[&str], after: &[Vec<usize>]) -> Result<(), String> {
    let mut seen = vec![Mark::New; after.len()];
    let mut path = Vec::new();
    for call in 0..after.len() {
        if let Some(cycle) = visit(call, after, &mut seen, &mut path) {
            let named = cycle.iter().chain(cycle.first()).filter_map(|call| names.get(*call));
            let named: Vec<String> = named.map(|name| format!("`{name}`")).collect();
            return Err(format!("calls wait for each other: {}", named.join(" for ")));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    New,
    OnPath,
    Done,
}

/// The calls of a cycle that a call leads into.
fn visit(call: usize, after: &[Vec<usize>], seen: &mut [Mark], path: &mut Vec<usize>) -> Option<Vec<usize>> {
    let mark = seen.get_mut(call)?;
    match *mark {
        Mark::Done => return None,
        Mark::OnPath => {
            let begins = path.iter().position(|on_path| *on_path == call)?;
            return path.get(begins..).map(<[usize]>::to_vec);
        }
        Mark::New => *mark = Mark::OnPath,
    }
    path.push(call);
    let cycle = after.get(call)?.iter().find_map(|earlier| visit(*earlier, after, seen, path));
    path.pop();
    if let Some(mark) = seen.get_mut(call) {
        *mark = Mark::Done;
    }
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    #[test]
    fn a_cycle_is_named() {
        for (after, want) in [
            (vec![vec![], vec![0], vec![0, 1]], Ok(())),
            (vec![vec![0]], Err("calls wait for each other: `a` for `a`")),
            (vec![vec![], vec![2], vec![0, 3], vec![1]], Err("calls wait for each other: `b` for `c` for `d` for `b`")),
        ] {
            assert_eq!(acyclic(&NAMES, &after), want.map_err(str::to_owned), "{after:?}");
        }
    }

    proptest! {
        /// Against an algorithm of another kind: calls that wait for nobody are taken away until none is left, or none can be.
        #[test]
        fn a_graph_is_refused_exactly_if_no_order_keeps_it(
            after in prop::collection::vec(prop::collection::vec(0..8_usize, 0..3), 8)
        ) {
            let mut left: Vec<usize> = (0..8).collect();
            while let Some(at) = left.iter().position(|call| after[*call].iter().all(|earlier| !left.contains(earlier))) {
                left.remove(at);
            }
            let found = acyclic(&NAMES, &after);
            prop_assert_eq!(found.is_ok(), left.is_empty(), "{:?}", found);
            if let Err(named) = found {
                let calls = named.split('`').filter_map(|name| NAMES.iter().position(|known| *known == name));
                let calls: Vec<usize> = calls.collect();
                prop_assert!(calls.len() > 1 && calls.first() == calls.last(), "{}", named);
                for pair in calls.windows(2) {
                    prop_assert!(after[pair[0]].contains(&pair[1]), "{} in {:?}", named, after);
                }
            }
        }
    }
}
