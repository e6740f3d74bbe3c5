//! What is watched: ports on all addresses, by the configuration or learned, and single addresses.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use aya::maps::{Array, HashMap as KernelMap, MapData};
use distwatch_ebpf::{End, port};
use distwatch_engine::event::Expected;

use super::flows::{absent_is_fine, io_error};
use super::layout::{Plain, end};

/// The kernel's tables, and what is in them.
pub(super) struct Listeners {
    ports: Array<MapData, u32>,
    addresses: KernelMap<MapData, Plain<End>, u32>,
    configured: HashMap<u16, u32>,
    /// Learned on all addresses.
    everywhere: HashMap<u16, u32>,
    /// Learned on these addresses alone.
    somewhere: HashMap<u16, Vec<SocketAddr>>,
}

impl Listeners {
    pub(super) fn new(
        ports: Array<MapData, u32>,
        addresses: KernelMap<MapData, Plain<End>, u32>,
        configured: &[(RangeInclusive<u16>, Expected)],
    ) -> io::Result<Self> {
        let mut listeners = Self {
            ports,
            addresses,
            configured: HashMap::new(),
            everywhere: HashMap::new(),
            somewhere: HashMap::new(),
        };
        listeners.configure(configured)?;
        Ok(listeners)
    }

    /// Replaces what the configuration names.
    pub(super) fn configure(&mut self, ports: &[(RangeInclusive<u16>, Expected)]) -> io::Result<()> {
        let mut changed: Vec<u16> = self.configured.drain().map(|(port, _)| port).collect();
        for (range, what) in ports {
            for port in range.clone() {
                *self.configured.entry(port).or_insert(0) |= bit(*what);
                changed.push(port);
            }
        }
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().try_for_each(|port| self.write(port))
    }

    pub(super) fn watch(&mut self, at: SocketAddr, what: Expected) -> io::Result<()> {
        if at.ip().is_unspecified() {
            *self.everywhere.entry(at.port()).or_insert(0) |= bit(what);
        } else {
            let added = self.addresses.insert(Plain(end(at)), 1, 0);
            added.map_err(|error| io_error("the table of addresses that are watched", error))?;
            let here = self.somewhere.entry(at.port()).or_default();
            if !here.contains(&at) {
                here.push(at);
            }
        }
        self.write(at.port())
    }

    pub(super) fn unwatch(&mut self, at: SocketAddr) -> io::Result<()> {
        if at.ip().is_unspecified() {
            self.everywhere.remove(&at.port());
        } else {
            absent_is_fine(self.addresses.remove(&Plain(end(at))))?;
            if let Some(here) = self.somewhere.get_mut(&at.port()) {
                here.retain(|other| *other != at);
            }
        }
        self.write(at.port())
    }

    fn write(&mut self, port: u16) -> io::Result<()> {
        let known = [&self.configured, &self.everywhere].into_iter().filter_map(|map| map.get(&port));
        let exact = if self.somewhere.get(&port).is_some_and(|here| !here.is_empty()) { port::EXACT } else { 0 };
        let bits = known.fold(exact, |bits, known| bits | known);
        self.ports.set(u32::from(port), bits, 0).map_err(|error| io_error("the table of ports", error))
    }
}

const fn bit(what: Expected) -> u32 {
    match what {
        Expected::Epmd => port::EPMD,
        Expected::Distribution => port::DISTRIBUTION,
    }
}
