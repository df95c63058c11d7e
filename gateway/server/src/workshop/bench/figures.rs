//! What was measured, shown, and held against a budget.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All figures of a module. Their names are those of the budget.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    pub(super) module: String,
    /// Whether this program was compiled as gateways are.
    pub(super) optimised: bool,
    pub(super) module_bytes: u64,
    pub(super) compile_ms: f64,
    pub(super) start_us: f64,
    /// WebAssembly memory of a VM that has started.
    pub(super) vm_memory_bytes: u64,
    /// What a further VM adds to the process; nothing where the system does not say.
    pub(super) vm_resident_bytes: Option<u64>,
    pub(super) cases: Vec<CaseFigures>,
    /// Those of another module, measured in turn with this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) against: Option<Box<Figures>>,
}

/// Those of one case.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CaseFigures {
    pub(super) name: String,
    /// In its callbacks, hostcalls included, from the making of its context to its deletion.
    pub(super) exchange_ns: f64,
    /// WebAssembly instructions that the guest executes for it.
    pub(super) exchange_instructions: f64,
    /// By how much the VM's memory grows for each exchange that waits for its upstream.
    pub(super) exchange_memory_bytes: f64,
    pub(super) callbacks: Vec<CallbackFigures>,
    /// What the figures do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remark: Option<String>,
}

/// Those of one of its callbacks.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CallbackFigures {
    pub(super) name: &'static str,
    pub(super) calls_per_exchange: f64,
    /// Of one call.
    pub(super) ns: f64,
    pub(super) instructions: f64,
}

/// What figures may be at most.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Budget {
    module_bytes: Option<f64>,
    compile_ms: Option<f64>,
    start_us: Option<f64>,
    vm_memory_bytes: Option<f64>,
    vm_resident_bytes: Option<f64>,
    exchange_ns: Option<f64>,
    exchange_instructions: Option<f64>,
    exchange_memory_bytes: Option<f64>,
    /// For cases by name, where it is not what holds for every case.
    cases: BTreeMap<String, CaseBudget>,
}

/// What the figures of one case may be at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CaseBudget {
    exchange_ns: Option<f64>,
    exchange_instructions: Option<f64>,
    exchange_memory_bytes: Option<f64>,
}

#[allow(clippy::cast_precision_loss, reason = "for people, and for comparing")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// With one decimal, where that says something.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// In units of `unit`.
pub(super) fn in_units(time: Duration, unit: Duration) -> f64 {
    time.as_secs_f64() / unit.as_secs_f64()
}

impl Budget {
    /// Every figure that is larger than it may be, a line each.
    pub(super) fn exceeded(&self, figures: &Figures) -> Vec<String> {
        let mut over = Vec::new();
        let mut hold = |name: &str, of: &str, came: Option<f64>, most: Option<f64>| match (came, most) {
            (Some(came), Some(most)) if came > most => {
                over.push(format!("{name}{of}: {}, at most {}", short(came), short(most)));
            }
            (None, Some(_)) => over.push(format!("{name}{of}: cannot be measured on this system")),
            _ => {}
        };
        hold("module_bytes", "", Some(float(figures.module_bytes)), self.module_bytes);
        hold("compile_ms", "", Some(figures.compile_ms), self.compile_ms);
        hold("start_us", "", Some(figures.start_us), self.start_us);
        hold("vm_memory_bytes", "", Some(float(figures.vm_memory_bytes)), self.vm_memory_bytes);
        hold("vm_resident_bytes", "", figures.vm_resident_bytes.map(float), self.vm_resident_bytes);
        for case in &figures.cases {
            let of = format!(" of `{}`", case.name);
            let own = self.cases.get(&case.name).copied().unwrap_or_default();
            let most = |own: Option<f64>, every| own.or(every);
            hold("exchange_ns", &of, Some(case.exchange_ns), most(own.exchange_ns, self.exchange_ns));
            let instructions = most(own.exchange_instructions, self.exchange_instructions);
            hold("exchange_instructions", &of, Some(case.exchange_instructions), instructions);
            let memory = most(own.exchange_memory_bytes, self.exchange_memory_bytes);
            hold("exchange_memory_bytes", &of, Some(case.exchange_memory_bytes), memory);
        }
        let measured = |name: &&String| figures.cases.iter().any(|case| case.name == **name);
        over.extend(
            self.cases.keys().filter(|name| !measured(name)).map(|name| format!("no case `{name}` was measured")),
        );
        over
    }
}

impl Figures {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let kib = |bytes: u64| bytes.div_ceil(1024);
        let mut line = |text: String| _ = writeln!(out, "{text}");
        line(format!(
            "{}: {} KiB; compiles in {:.1} ms, a VM starts in {:.0} µs",
            self.module,
            kib(self.module_bytes),
            self.compile_ms,
            self.start_us
        ));
        let resident = self.vm_resident_bytes.map(|bytes| format!(", {} KiB of the process'", kib(bytes)));
        line(format!("a VM: {} KiB of its own memory{}", kib(self.vm_memory_bytes), resident.unwrap_or_default()));
        if !self.optimised {
            line("this portcullis is a debug build: times are longer than a gateway's".to_owned());
        }
        for case in &self.cases {
            line(format!("\n{}", case.name));
            if let Some(remark) = &case.remark {
                line(format!("  {remark}"));
            }
            let total = (case.exchange_ns, case.exchange_instructions);
            line(format!("  {:<40} {:>10.0} ns {:>10.0} instructions", "an exchange", total.0, total.1));
            let waiting = case.exchange_memory_bytes;
            line(format!("  {:<40} {waiting:>10.0} bytes", "an exchange that waits for its upstream"));
            for CallbackFigures { name, calls_per_exchange, ns, instructions } in &case.callbacks {
                let times =
                    if *calls_per_exchange == 1.0 { String::new() } else { format!(" × {calls_per_exchange:.2}") };
                line(format!("    {:<38} {ns:>10.0} ns {instructions:>10.0} instructions", format!("{name}{times}")));
            }
        }
        if let Some(other) = &self.against {
            out.push('\n');
            out.push_str(&other.text());
            out.push('\n');
            self.compare(other, &mut out);
        }
        out
    }

    /// A line for each case that both have.
    fn compare(&self, other: &Self, out: &mut String) {
        for case in &self.cases {
            let Some(against) = other.cases.iter().find(|other| other.name == case.name) else { continue };
            let more = |of: fn(&CaseFigures) -> f64| (of(case) - of(against), of(case) / of(against));
            let ((ns, ns_times), (count, times)) = (more(|c| c.exchange_ns), more(|c| c.exchange_instructions));
            let _written = writeln!(
                out,
                "{}: {ns:+.0} ns ({ns_times:.2} ×), {count:+.0} instructions ({times:.2} ×) against {}",
                case.name, other.module
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let case = CaseFigures {
            name: "plain".to_owned(),
            exchange_ns: 1500.4,
            exchange_instructions: 3000.0,
            exchange_memory_bytes: 70.0,
            callbacks: Vec::new(),
            remark: None,
        };
        Figures {
            module: "a.wasm".to_owned(),
            optimised: true,
            module_bytes: 10,
            compile_ms: 1.0,
            start_us: 2.0,
            vm_memory_bytes: 65536,
            vm_resident_bytes: None,
            cases: vec![case],
            against: None,
        }
    }

    #[test]
    fn a_budget_names_every_figure_beyond_it_and_what_cannot_be_measured() {
        let budget = |json: &str| serde_json::from_str::<Budget>(json).unwrap();
        assert_eq!(budget("{}").exceeded(&figures()), [""; 0]);
        assert_eq!(budget(r#"{"exchange_ns":1501,"module_bytes":10}"#).exceeded(&figures()), [""; 0]);
        let all = r#"{"module_bytes":9,"compile_ms":0.5,"start_us":1,"vm_memory_bytes":1,"vm_resident_bytes":1,
            "exchange_ns":1500,"exchange_instructions":1,"exchange_memory_bytes":1}"#;
        assert_eq!(
            budget(all).exceeded(&figures()),
            [
                "module_bytes: 10, at most 9",
                "compile_ms: 1, at most 0.5",
                "start_us: 2, at most 1",
                "vm_memory_bytes: 65536, at most 1",
                "vm_resident_bytes: cannot be measured on this system",
                "exchange_ns of `plain`: 1500.4, at most 1500",
                "exchange_instructions of `plain`: 3000, at most 1",
                "exchange_memory_bytes of `plain`: 70, at most 1",
            ]
        );
    }

    #[test]
    fn a_case_may_have_a_budget_of_its_own() {
        let budget = r#"{"exchange_ns":1,"cases":{"plain":{"exchange_ns":1500},"other":{"exchange_ns":1}}}"#;
        let budget: Budget = serde_json::from_str(budget).unwrap();
        let over = ["exchange_ns of `plain`: 1500.4, at most 1500", "no case `other` was measured"];
        assert_eq!(budget.exceeded(&figures()), over);
    }

    #[test]
    fn every_key_of_a_budget_is_a_figure() {
        let shown = serde_json::to_value(figures()).unwrap();
        let case = &shown["cases"][0];
        let known = |key: &str| shown.get(key).is_some() || case.get(key).is_some();
        let refused = serde_json::from_str::<Budget>(r#"{"x":1}"#).unwrap_err().to_string();
        let keys: Vec<&str> = refused.split('`').skip(3).step_by(2).collect();
        assert_eq!(keys.len(), 9, "{refused}");
        assert!(keys.iter().all(|key| known(key)), "{keys:?}");
    }
}
