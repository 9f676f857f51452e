//! Shadow code as people, reports and tests look at it.
#![expect(unsafe_code, reason = "copies guest code")]

use super::Shadow;
use crate::cpu::Vcpu;
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::lockstep::HostCode;
use crate::shadow::listing;
use crate::shadow::pages::ShadowUnit;
use crate::shadow::scanner::CodeBytes;

impl<B: Bus> Shadow<B> {
    /// The shadow code of the page that the code at `code` belongs to.
    pub(super) fn host_code(&self, code: u64) -> HostCode {
        let has = |unit: &&ShadowUnit<B>| (unit.code..unit.code + u64::from(unit.len)).contains(&code);
        let mut all = HostCode::new();
        let Some(page) = self.pages.iter().find(|page| page.units.iter().any(|unit| has(&unit))) else {
            return all;
        };
        for unit in &page.units {
            let mut places = unit.map.clone();
            places.sort_by_key(|(_, place)| *place);
            let ends = places.iter().skip(1).map(|(_, place)| *place).chain([unit.len]);
            for ((offset, place), end) in places.iter().zip(ends) {
                let address = unit.code + u64::from(*place);
                if let Some(code) = self.cache.code(address, (end - place) as usize) {
                    // (The first turn of a loop.)
                    all.entry(*offset).or_insert_with(|| (address, code.to_vec()));
                }
            }
        }
        all
    }

    /// Makes the shadow code of the instruction at an offset of its page wrong: the first byte `from` becomes `to`.
    #[cfg(test)]
    pub(crate) fn falsify(&mut self, offset: u16, from: u8, to: u8) {
        let units = self.pages.iter().flat_map(|page| &page.units);
        let place =
            units.flat_map(|unit| unit.map.iter().map(|(at, place)| (*at, unit.code + u64::from(*place))));
        let (_, start) = place.into_iter().find(|(at, _)| *at == offset).expect("there is shadow code of it");
        let at = (start..).find(|at| self.cache.code(*at, 1) == Some(&[from])).expect("it has such a byte");
        self.cache.poke(at, to);
    }

    /// What was made of the guest's page at a physical address, in lines for people.
    pub fn list(&self, cpu: &mut Vcpu<B>, physical: u64) -> String {
        let physical = physical & !(PAGE_SIZE - 1);
        let now = cpu.bus.page(physical).read;
        let mut text = String::new();
        for page in self.pages.iter().filter(|page| page.physical == physical) {
            // A page that is elsewhere now is dropped before shadow code runs again.
            let Some(host) = now.filter(|host| host.as_ptr() as usize == page.host) else { continue };
            // SAFETY: the bus granted the whole page for reading; devices may write meanwhile.
            let guest = unsafe { CodeBytes::copy(host.as_ptr(), None) };
            let table = self.tables.address(page.table);
            listing::page(&mut text, page, &guest, &self.cache, self.places, table, &self.links.range());
        }
        if text.is_empty() {
            text.push_str("There is no shadow code of this page\n");
        }
        text
    }

    /// What has been done, in lines for people.
    pub fn report(&self) -> String {
        let mut text = self.statistics().to_string() + &self.sites.to_string();
        if let Some(witness) = &self.witness {
            text.push_str(&witness.statistics());
        }
        text
    }
}
