//! Values that grow, record by record.

use super::super::keys::{name, SEQUENCES};
use super::super::log::{finished, Verb, TORN};
use super::super::sequence;
use super::Client;

impl Client<'_> {
    pub(super) fn append(&mut self) {
        let key = self.pick(&SEQUENCES);
        let name = name(key);
        let id = self.logs.next_id(self.slot);
        let record = sequence::record(key, id);
        let begun = self.logs.begin(self.slot, Verb::Append, key, id);
        let len = self.region.append(&name, &record).unwrap();
        self.logs.end(&begun, len, 0);
    }

    pub(super) fn read_sequence(&mut self) {
        let key = self.pick(&SEQUENCES);
        let name = name(key);
        let begun = self.logs.begin(self.slot, Verb::ReadAll, key, 0);
        self.region.get_into(&name, &mut self.value).unwrap();
        let end = finished();
        let (count, digest) = match sequence::parts(key, &self.value) {
            Some(parts) => (parts.len() as u64, sequence::digest(&parts)),
            None => (TORN, 0),
        };
        self.logs.end_at(&begun, end, count, digest);
    }
}
