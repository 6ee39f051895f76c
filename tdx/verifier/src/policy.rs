//! What is asked of a genuine quote: which image, on a platform in which state, at what time.

use crate::date::{DAY, Date};
use crate::manifest::{Manifest, Release, ReleaseKey, SignedManifest};
use crate::measurement::Measurement;
use crate::refused::{Reason, Refused};
use crate::tcb::Shortfall;
use crate::verifier::Genuine;

/// What is asked. Only a manifest that the expected key has signed makes one.
#[derive(Clone, Debug)]
pub struct Policy {
    manifest: Manifest,
    floor: Date,
}

impl Policy {
    /// Takes a manifest that this key has signed. `floor` is the newest date that was ever seen signed: a guest's clock is
    /// its host's, and no time before the floor is believed.
    ///
    /// # Errors
    /// If the manifest is not signed, by another key, or not as it stands.
    pub fn new(manifest: SignedManifest, key: &ReleaseKey, floor: Date) -> Result<Self, Refused> {
        let manifest = manifest.open(key)?;
        let floor = floor.max(manifest.issued);
        Ok(Self { manifest, floor })
    }

    /// What the key has signed.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// No time before this is believed.
    #[must_use]
    pub const fn floor(&self) -> Date {
        self.floor
    }

    /// Whether it can be this time.
    ///
    /// # Errors
    /// If something has happened that is dated later.
    pub fn check_time(&self, now: Date) -> Result<(), Refused> {
        if now < self.floor {
            let need = format_args!("{} or later, for something signed is dated so", self.floor);
            return Err(Refused::new(Reason::ClockTurnedBack, format_args!("the time {now}"), need));
        }
        Ok(())
    }

    /// Whether the guest runs a release that is admitted at this time, and which one.
    ///
    /// # Errors
    /// If not: with the reason of the release that comes nearest.
    pub fn check_image(&self, genuine: &Genuine, now: Date) -> Result<&Release, Refused> {
        let releases = &self.manifest.releases;
        let refusal = |release: &Release| check_release(release, genuine, now).err();
        let mut refusals: Vec<_> = Vec::new();
        for release in releases.iter().filter(|release| release.mr_td == genuine.mr_td) {
            match refusal(release) {
                None => return Ok(release),
                Some(refused) => refusals.push(refused),
            }
        }
        // An image that is right at another time is nearer than one that is none of ours.
        refusals.sort_by_key(|refused| !matches!(refused.reason(), Reason::NotYet | Reason::Retired));
        Err(refusals.into_iter().next().unwrap_or_else(|| {
            let need = format_args!(
                "that of one of the {} releases in manifest {}",
                releases.len(),
                self.manifest.number
            );
            Refused::new(Reason::UnknownMeasurement, format_args!("MR_TD {}", genuine.mr_td), need)
        }))
    }

    /// Whether the platform is in a state that is accepted, and until when it is, if nothing else changes.
    ///
    /// # Errors
    /// If not.
    pub fn check_platform(&self, genuine: &Genuine, now: Date) -> Result<Date, Refused> {
        let Manifest {
            platforms,
            evaluation_number_min,
            accepted_statuses,
            accepted_advisories,
            grace_days,
            ..
        } = &self.manifest;
        if let Some(platforms) = platforms
            && !platforms.contains(&genuine.platform)
        {
            let need = format_args!("one of the {} platforms of the manifest", platforms.len());
            return Err(Refused::new(
                Reason::PlatformNotListed,
                format_args!("PPID {}", genuine.platform),
                need,
            ));
        }
        if genuine.evaluation_number < *evaluation_number_min {
            let have = format_args!("collateral of evaluation number {}", genuine.evaluation_number);
            return Err(Refused::new(
                Reason::EvaluationNumber,
                have,
                format_args!("{evaluation_number_min} or more"),
            ));
        }
        let missing = || {
            let missing: Vec<_> = genuine.shortfalls.iter().map(Shortfall::to_string).collect();
            let dates: Vec<_> = genuine.out_of_date.iter().map(|date| format!(" of {date}")).collect();
            format!("{}{} ({})", genuine.status, dates.concat(), missing.join(" / "))
        };
        if !accepted_statuses.contains(&genuine.status) {
            let accepted: Vec<_> = accepted_statuses.iter().map(ToString::to_string).collect();
            return Err(Refused::new(
                Reason::TcbStatus,
                missing(),
                format_args!("one of [{}]", accepted.join(", ")),
            ));
        }
        let grace = u64::from(*grace_days) * DAY;
        let until = genuine.out_of_date.iter().map(|date| date.after(grace)).min().unwrap_or(Date(u64::MAX));
        if now > until {
            let need = format_args!("UpToDate since {until}: the manifest gives {grace_days} days");
            return Err(Refused::new(Reason::GraceOver, missing(), need));
        }
        let bad = |id: &&String| !accepted_advisories.contains(*id);
        let bad: Vec<&str> = genuine.advisories.iter().filter(bad).map(String::as_str).collect();
        if !bad.is_empty() {
            let need = format_args!("none besides [{}]", accepted_advisories.join(", "));
            return Err(Refused::new(Reason::Advisory, bad.join(", "), need));
        }
        Ok(until)
    }
}

/// Whether a release of this MR_TD admits the guest.
fn check_release(release: &Release, genuine: &Genuine, now: Date) -> Result<(), Refused> {
    let Release { label, mr_td: _, rtmr1, rtmr2, not_before, not_after } = release;
    let registers = [(1, rtmr1), (2, rtmr2)];
    for (number, pinned) in
        registers.iter().filter_map(|(number, pinned)| Some((*number, (*pinned).as_ref()?)))
    {
        let have: Measurement = genuine.rtmr[number];
        let need = format_args!("{pinned} for {label}");
        if have.is_zero() {
            return Err(Refused::new(
                Reason::RegisterAbsent,
                format_args!("nothing measured in RTMR{number}"),
                need,
            ));
        }
        if have != *pinned {
            return Err(Refused::new(Reason::RegisterDiffers, format_args!("RTMR{number} {have}"), need));
        }
    }
    let have = format_args!("{label} on {now}");
    if now < *not_before {
        return Err(Refused::new(Reason::NotYet, have, format_args!("a date from {not_before} on")));
    }
    if now > *not_after {
        return Err(Refused::new(Reason::Retired, have, format_args!("a date up to {not_after}")));
    }
    Ok(())
}
