//! Findings of which a record was dropped on its way out: whoever missed it is to hear their last state all the same.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::feed::Batch;

/// How many are remembered: more than there are findings, and two megabytes. What is dropped beyond is counted like all of it.
const MOST: usize = 65_536;

/// Their fingerprints.
#[derive(Debug, Default)]
pub struct Untold(Mutex<BTreeSet<String>>);

impl Untold {
    /// Nobody got this.
    pub fn add(&self, batch: &Batch) {
        let mut all = self.all();
        for alert in batch.records.iter().filter_map(|record| record.alert.as_ref()) {
            if all.len() < MOST {
                all.insert(alert.fingerprint.clone());
            }
        }
    }

    /// Some of them, at most so many: they are being told again.
    #[must_use]
    pub fn take(&self, most: usize) -> BTreeSet<String> {
        let mut all = self.all();
        let rest = all.iter().nth(most).cloned().map(|next| all.split_off(&next));
        std::mem::replace(&mut all, rest.unwrap_or_default())
    }

    fn all(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::feed::{Audience, Form, Writer};
    use crate::report::sample;

    #[test]
    fn what_is_told_again_is_taken_in_parts() {
        let mut writer = Writer::new(Form::Ndjson, Audience::All, "h".into());
        let mut alert = sample::report().alerts.remove(0);
        for number in 0..10 {
            alert.fingerprint = format!("{number}");
            writer.write_alert(&alert);
        }
        let untold = Untold::default();
        untold.add(&writer.take());
        let parts: Vec<usize> = (0..5).map(|_| untold.take(4).len()).collect();
        assert_eq!(parts, [4, 4, 2, 0, 0]);
    }
}
