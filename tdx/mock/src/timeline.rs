//! What a vendor publishes when, and what a machine gets that fetches it.

use zipnet_tdx::date::{DAY, Date};
use zipnet_tdx::measurement::Fmspc;
use zipnet_tdx::tcb::Status;

use crate::vendor::{Bulletin, Level, Version};

/// Which of the two sets of collateral is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The one that gives operators time.
    Standard,
    /// The one that takes a recovery into account as soon as it is published.
    Early,
}

/// A weakness became known, and older states are out of date.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// When the early collateral has it.
    pub early: Date,
    /// When the standard collateral has it.
    pub standard: Date,
    /// The state that is up to date from then on.
    pub level: Level,
    /// Why the others are not.
    pub advisory: String,
}

/// The course of time, as far as a vendor makes it.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The kind of platform.
    pub fmspc: Fmspc,
    /// When it begins: with every machine up to date.
    pub since: Date,
    /// In the order of time.
    pub recoveries: Vec<Recovery>,
    /// When lists of revoked PCK certificates are issued, and until when each is valid, in the order of time. None: one
    /// every day, for 30 days.
    pub pck_lists: Vec<(Date, Date)>,
    /// When a PCK certificate is revoked, and its serial number.
    pub revoked: Vec<(Date, u64)>,
}

impl Timeline {
    /// One in which nothing happens.
    #[must_use]
    pub const fn quiet(fmspc: Fmspc, since: Date) -> Self {
        Self { fmspc, since, recoveries: Vec::new(), pck_lists: Vec::new(), revoked: Vec::new() }
    }

    /// What is fetched at a time. Collateral is made anew every day.
    ///
    /// # Panics
    /// If that is before it begins.
    #[must_use]
    pub fn fetch(&self, now: Date, update: Update) -> Bulletin {
        let days = now.0.checked_sub(self.since.0).expect("nobody fetches before there is a vendor") / DAY;
        let issued = self.since.after(days * DAY);
        let mut bulletin = Bulletin::quiet(self.fmspc, issued);
        bulletin.levels = vec![Level::default_at(self.since)];
        let up_to_date =
            |svn| Version { svn, date: self.since, status: Status::UpToDate, advisories: vec![] };
        bulletin.modules = vec![up_to_date(2)];
        bulletin.enclaves = vec![up_to_date(4)];
        let day = |recovery: &Recovery| match update {
            Update::Standard => recovery.standard,
            Update::Early => recovery.early,
        };
        for recovery in self.recoveries.iter().filter(|recovery| day(recovery) <= issued) {
            for level in &mut bulletin.levels {
                level.status = Status::OutOfDate;
                level.advisories.push(recovery.advisory.clone());
            }
            bulletin.levels.insert(0, recovery.level.clone());
            bulletin.evaluation_number += 1;
        }
        if let Some(list) = self.pck_lists.iter().rev().find(|(issued, _)| *issued <= now) {
            bulletin.pck_list = *list;
        }
        let known = |(since, serial): &(Date, u64)| (*since <= bulletin.pck_list.0).then_some(*serial);
        bulletin.revoked = self.revoked.iter().filter_map(known).collect();
        bulletin
    }
}
