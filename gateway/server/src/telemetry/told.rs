//! What others have told of, for scrapes: VMs, upstreams, TLS files, and the configuration.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_core::rollout::Rollout;
use portcullis_core::time::nanos;
use portcullis_vm::VmCells;

use super::exposition::{Exposition, Seconds};
use super::filters::{self, Vms};
use super::guests::{self, Guests};
use super::rollouts;
use super::room::{Roster, UPSTREAMS};
use super::tenants;
use super::tls_files;
use super::upstreams::{self, UpstreamCounts};
use crate::clock;
use crate::config::standing::Held;
use crate::tls::files::Shown;

/// All of it.
#[derive(Debug)]
pub(super) struct Told {
    vms: Vms,
    guests: Guests,
    upstreams: Vec<Arc<UpstreamCounts>>,
    upstream_names: Roster<upstreams::Name>,
    revision: Option<Revision>,
    refusals: u64,
    pub(super) tls_files: Vec<Arc<Shown>>,
    pub(super) accounts: Vec<tenants::Named>,
    pub(super) held: Arc<Held>,
    pub(super) rollouts: Vec<Arc<Rollout>>,
}

/// What is told of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Revision {
    pub(super) number: u64,
    pub(super) digest: Box<str>,
    pub(super) since: SystemTime,
    /// Whether the last change was put into use.
    pub(super) is_last: bool,
}

/// What of it a scrape shows. Put into words without holding what workers may want to tell.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) filters: filters::ByName,
    /// VMs that do not run because they failed.
    pub(super) troubles: Vec<String>,
    guests: Vec<guests::Shown>,
    pub(super) upstreams: Vec<(Arc<UpstreamCounts>, bool)>,
    tls_files: Vec<Arc<Shown>>,
    pub(super) accounts: Vec<tenants::Named>,
    pub(super) held: Arc<Held>,
    pub(super) rollouts: Vec<Arc<Rollout>>,
    pub(super) revision: Option<Revision>,
    pub(super) refusals: u64,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            vms: Vms::default(),
            guests: Guests::default(),
            upstreams: Vec::new(),
            upstream_names: Roster::of(&UPSTREAMS),
            revision: None,
            refusals: 0,
            tls_files: Vec::new(),
            accounts: Vec::new(),
            held: Arc::default(),
            rollouts: Vec::new(),
        }
    }
}

impl Told {
    pub(super) fn add_vms(&mut self, vms: Vec<Arc<VmCells>>) {
        self.vms.add(vms);
    }

    pub(super) fn add_upstream(&mut self, counts: Arc<UpstreamCounts>) {
        self.upstreams.push(counts);
    }

    pub(super) fn set_revision(&mut self, number: u64, digest: &str) {
        self.revision = Some(Revision { number, digest: digest.into(), since: SystemTime::now(), is_last: true });
    }

    pub(super) fn refused_revision(&mut self) {
        self.refusals += 1;
        if let Some(revision) = &mut self.revision {
            revision.is_last = false;
        }
    }

    pub(super) fn look(&mut self) -> Sight {
        let guests = self.guests.read(self.vms.cells());
        let upstreams =
            self.upstreams.iter().map(|counts| (counts.clone(), upstreams::admit(&mut self.upstream_names, counts)));
        let now = clock::now();
        Sight {
            filters: self.vms.sums(now),
            troubles: filters::troubles(self.vms.cells(), now),
            guests,
            upstreams: upstreams.collect(),
            tls_files: self.tls_files.clone(),
            accounts: self.accounts.clone(),
            held: self.held.clone(),
            rollouts: self.rollouts.clone(),
            revision: self.revision.clone(),
            refusals: self.refusals,
        }
    }
}

impl Sight {
    pub(super) fn render(&self, text: &mut Exposition) {
        filters::render(text, &self.filters);
        guests::render(text, &self.guests);
        upstreams::render(text, &self.upstreams);
        tls_files::render(text, &self.tls_files);
        tenants::render(text, &self.accounts, &self.held);
        rollouts::render(text, &self.rollouts);
        if let Some(revision) = &self.revision {
            revision.render(text, self.refusals);
        }
    }
}

impl Revision {
    fn render(&self, text: &mut Exposition, refusals: u64) {
        let mut metric = |name: &str, kind: &str, help: &str, labels: &[(&str, &str)], value: &dyn Display| {
            text.family(name, kind, help);
            text.sample(name, labels, value);
        };
        let number = self.number.to_string();
        let labels = [("revision", &*number), ("digest", &*self.digest)];
        let help = "The configuration's revision that is served: its number since the start, and what it is called everywhere.";
        metric("portcullis_config_revision_info", "gauge", help, &labels, &1);
        let help = "When that revision was put into use, in seconds since the Unix epoch.";
        metric("portcullis_config_revision_timestamp_seconds", "gauge", help, &[], &since_epoch(self.since));
        let help = "Whether the last change of the configuration was put into use: 1, or 0 when it was refused.";
        metric("portcullis_config_last_apply_success", "gauge", help, &[], &u8::from(self.is_last));
        let help = "Configurations put into use since the start, the first included.";
        metric("portcullis_config_applied_total", "counter", help, &[], &self.number);
        let help = "Changes of the configuration that were refused.";
        metric("portcullis_config_refused_total", "counter", help, &[], &refusals);
    }
}

pub(super) fn since_epoch(time: SystemTime) -> Seconds {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Seconds(nanos(since))
}
