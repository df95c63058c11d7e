//! The plugins' threads: a life of a VM each, begun anew when one fails.

use std::fmt;

use portcullis_core::context::{CalloutResponse, ContextRef, Owner};
use portcullis_core::exchange::Exchanges;
use portcullis_core::filter::{Callback, ChainFilter, Failed, Filters, NotOpened, VmIndex};
use portcullis_core::grpc::News;
use portcullis_core::time::Time;
use portcullis_simulation::{Guests, Line};

use crate::gateway::StartFailed;
use crate::services::{Letter, Services};
use crate::thread::{Spec, Vm};

/// The plugins' threads, as the chain sees them.
pub(crate) struct Threads {
    vms: Vec<Place>,
    services: Services,
    log: Vec<Line>,
}

struct Place {
    spec: Spec,
    life: u32,
    vm: Option<Vm>,
}

impl Threads {
    pub(crate) fn new(services: Services) -> Self {
        Self { vms: Vec::new(), services, log: Vec::new() }
    }

    pub(crate) fn add(&mut self, spec: Spec, exchanges: &mut Exchanges) -> Result<(), StartFailed> {
        let index = VmIndex(u32::try_from(self.vms.len()).unwrap_or(u32::MAX));
        let vm = Vm::start(&spec, (index, 1), self.services.clone(), exchanges)
            .map_err(|log| StartFailed { plugin: spec.name.clone(), log })?;
        self.vms.push(Place { spec, life: 1, vm: Some(vm) });
        Ok(())
    }

    /// Does something in a VM, in this of its lives if that matters. One that fails is orphaned of its exchanges.
    fn enter<R>(
        &mut self,
        exchanges: &mut Exchanges,
        (index, life): (VmIndex, Option<u32>),
        act: impl FnOnce(&mut Vm, &mut Exchanges) -> Result<R, Failed>,
    ) -> Result<R, Failed> {
        let place = self.vms.get_mut(index.0 as usize).ok_or(Failed)?;
        if life.is_some_and(|life| life != place.life) {
            return Err(Failed);
        }
        let vm = place.vm.as_mut().ok_or(Failed)?;
        let done = act(vm, exchanges);
        self.log.extend(vm.take_log());
        if done.is_err() {
            for owner in vm.owners() {
                exchanges.orphan(owner.exchange, owner.filter);
            }
            place.vm = None;
        }
        done
    }

    /// Makes sure that a VM is live.
    fn revive(&mut self, exchanges: &mut Exchanges, index: VmIndex) -> Result<(), Failed> {
        let place = self.vms.get_mut(index.0 as usize).ok_or(Failed)?;
        if place.vm.is_some() {
            return Ok(());
        }
        place.life += 1;
        match Vm::start(&place.spec, (index, place.life), self.services.clone(), exchanges) {
            Ok(vm) => {
                place.vm = Some(vm);
                Ok(())
            }
            Err(log) => {
                self.log.extend(log);
                Err(Failed)
            }
        }
    }
}

impl Filters for Threads {
    fn open(&mut self, exchanges: &mut Exchanges, filter: &ChainFilter, owner: Owner) -> Result<ContextRef, NotOpened> {
        self.revive(exchanges, filter.vm)?;
        Ok(self.enter(exchanges, (filter.vm, None), |vm, exchanges| vm.open(exchanges, owner))?)
    }

    fn call(&mut self, exchanges: &mut Exchanges, context: ContextRef, callback: Callback) -> Result<u32, Failed> {
        let place = (context.vm, Some(context.life));
        self.enter(exchanges, place, |vm, exchanges| vm.callback(exchanges, context.id, callback))
    }

    fn close(&mut self, _: &mut Exchanges, context: ContextRef) {
        if let Some(place) = self.vms.get_mut(context.vm.0 as usize)
            && place.life == context.life
            && let Some(vm) = &mut place.vm
        {
            vm.close(context.id);
        }
    }
}

impl Guests for Threads {
    fn next_tick(&self) -> Option<Time> {
        self.vms.iter().filter_map(|place| place.vm.as_ref()?.next_tick()).min()
    }

    fn tick(&mut self, exchanges: &mut Exchanges) {
        for index in (0..self.vms.len()).filter_map(|index| u32::try_from(index).ok()).map(VmIndex) {
            let now = exchanges.now;
            let _failed = self.enter(exchanges, (index, None), |vm, exchanges| {
                if vm.next_tick().is_some_and(|due| due <= now) { vm.tick(exchanges) } else { Ok(()) }
            });
        }
    }

    fn deliver(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, response: CalloutResponse) {
        let place = (root.vm, Some(root.life));
        let _failed = self.enter(exchanges, place, |vm, exchanges| vm.deliver(exchanges, token, response));
    }

    fn hear(&mut self, exchanges: &mut Exchanges, root: ContextRef, token: u32, news: News) {
        let place = (root.vm, Some(root.life));
        let _failed = self.enter(exchanges, place, |vm, exchanges| vm.hear(exchanges, token, news));
    }

    fn read_letter(&mut self, exchanges: &mut Exchanges) -> bool {
        let Some(Letter { root, queue }) = self.services.next_letter() else { return false };
        let place = (root.vm, Some(root.life));
        // One that is meant for a life that is over has nobody to read it.
        let _failed = self.enter(exchanges, place, |vm, exchanges| vm.queue_ready(exchanges, queue));
        true
    }

    fn take_log(&mut self) -> Vec<Line> {
        for place in &mut self.vms {
            if let Some(vm) = &mut place.vm {
                self.log.extend(vm.take_log());
            }
        }
        std::mem::take(&mut self.log)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("vms", &self.vms.len()).finish_non_exhaustive()
    }
}
