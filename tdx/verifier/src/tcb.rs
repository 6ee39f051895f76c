//! How up to date a platform is, and in what it falls short of what Intel lists last.

use core::fmt;

use dcap_qvl::intel::PckExtension;
use dcap_qvl::{SvnComponent, SvnShortfall, TcbInfo, TcbLevel, TcbStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::collateral::Collateral;
use crate::quote::Quote;

/// What Intel calls the state of a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Status {
    /// Nothing is missing.
    UpToDate,
    /// Software in the guest has to defend itself.
    SWHardeningNeeded,
    /// A setting of the platform is missing.
    ConfigurationNeeded,
    /// Both.
    ConfigurationAndSWHardeningNeeded,
    /// An update is missing.
    OutOfDate,
    /// An update and a setting are missing.
    OutOfDateConfigurationNeeded,
    /// The guest was started before an update that the platform has.
    TDRelaunchAdvised,
    /// The same, and a setting is missing.
    TDRelaunchAdvisedConfigurationNeeded,
    /// Intel trusts platforms of this state no more.
    Revoked,
}

impl Status {
    /// A number that stays.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::UpToDate => 0,
            Self::SWHardeningNeeded => 1,
            Self::ConfigurationNeeded => 2,
            Self::ConfigurationAndSWHardeningNeeded => 3,
            Self::OutOfDate => 4,
            Self::OutOfDateConfigurationNeeded => 5,
            Self::TDRelaunchAdvised => 6,
            Self::TDRelaunchAdvisedConfigurationNeeded => 7,
            Self::Revoked => 8,
        }
    }

    /// Whether an update is missing, so that time counts.
    #[must_use]
    pub const fn is_out_of_date(self) -> bool {
        matches!(self, Self::OutOfDate | Self::OutOfDateConfigurationNeeded)
    }

    pub(crate) const fn of(status: TcbStatus) -> Self {
        match status {
            TcbStatus::UpToDate => Self::UpToDate,
            TcbStatus::SWHardeningNeeded => Self::SWHardeningNeeded,
            TcbStatus::ConfigurationNeeded => Self::ConfigurationNeeded,
            TcbStatus::ConfigurationAndSWHardeningNeeded => Self::ConfigurationAndSWHardeningNeeded,
            TcbStatus::OutOfDate => Self::OutOfDate,
            TcbStatus::OutOfDateConfigurationNeeded => Self::OutOfDateConfigurationNeeded,
            TcbStatus::TDRelaunchAdvised => Self::TDRelaunchAdvised,
            TcbStatus::TDRelaunchAdvisedConfigurationNeeded => Self::TDRelaunchAdvisedConfigurationNeeded,
            TcbStatus::Revoked => Self::Revoked,
        }
    }
}

impl fmt::Display for Status {
    /// As Intel writes it, which is as the variants are called.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What lifts a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lift {
    /// An update of BIOS or microcode.
    Firmware,
    /// An update of the TDX module, and a new start of the guest.
    TdxModule,
    /// An update of Intel's quote service on the host.
    QuoteService,
}

impl fmt::Display for Lift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firmware => "update BIOS or microcode",
            Self::TdxModule => "update the TDX module and start the guest again",
            Self::QuoteService => "update Intel's quote service on the host",
        })
    }
}

/// A component whose version is lower than that of the newest level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    /// Intel's name for it, with its place.
    pub component: String,
    /// Its version.
    pub have: u16,
    /// The version of the newest level.
    pub need: u16,
    /// What lifts it.
    pub lift: Lift,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, have, need, lift } = self;
        write!(f, "{component}: have {have}, need {need}; {lift}")
    }
}

/// In what the platform of a quote falls short of the newest level of some collateral. Empty if the quote's own claims
/// about the platform cannot be compared with it.
pub(crate) fn shortfalls(
    quote: &Quote<'_>,
    platform: &PckExtension,
    collateral: &Collateral,
) -> Vec<Shortfall> {
    let tee = quote.tee_tcb_svn();
    let info = collateral.tcb_info();
    let mut found = Vec::new();
    let newest = |level: &&TcbLevel| level.tcb_status != TcbStatus::Revoked;
    let components = |level: &TcbLevel| {
        (level.tcb.sgx_components.clone(), level.tcb.pce_svn, level.tcb.tdx_components.clone())
    };
    if let Some(level) = info.tcb_levels.iter().filter(newest).max_by_key(|level| components(level)) {
        let missing = level.shortfalls(&platform.cpu_svn, platform.pce_svn, Some(&tee)).unwrap_or_default();
        found.extend(missing.into_iter().map(|missing| named(missing, level, collateral)));
    }
    let module = info.tdx_module_identity(&tee).ok().flatten();
    if let Some(missing) = module.and_then(|module| module.tcb_levels.first()?.shortfall(&tee)) {
        let component = "TDX module".to_owned();
        found.push(Shortfall { component, have: missing.have, need: missing.needs, lift: Lift::TdxModule });
    }
    let enclave = collateral.qe_identity().tcb_levels.first().map_or(0, |level| level.tcb.isvsvn);
    if quote.enclave_svn() < enclave {
        let component = "TD quoting enclave".to_owned();
        found.push(Shortfall {
            component,
            have: quote.enclave_svn(),
            need: enclave,
            lift: Lift::QuoteService,
        });
    }
    found
}

/// What a module of this version has to be at least; `None` if Intel lists no such module.
pub(crate) fn module_version_min(info: &TcbInfo, tee: &[u8; 16]) -> Option<u8> {
    let module = info.tdx_module_identity(tee).ok().flatten()?;
    module.tcb_levels.iter().map(|level| level.tcb.isvsvn).min()
}

fn named(missing: SvnShortfall, level: &TcbLevel, collateral: &Collateral) -> Shortfall {
    let (list, place, kind) = match missing.component {
        SvnComponent::Sgx(place) => ("sgxtcbcomponents", place, "SGX"),
        SvnComponent::Tdx(place) => ("tdxtcbcomponents", place, "TDX"),
        SvnComponent::PceSvn => return plain(missing, "PCE", Lift::QuoteService),
        SvnComponent::TdxModuleIsvSvn => return plain(missing, "TDX module", Lift::TdxModule),
    };
    let name = component_name(collateral, level, list, usize::from(place));
    let lift = if name.contains("TDX Module") { Lift::TdxModule } else { Lift::Firmware };
    let component =
        if name.is_empty() { format!("{kind} {place}") } else { format!("{kind} {place} ({name})") };
    Shortfall { component, have: missing.have, need: missing.needs, lift }
}

fn plain(missing: SvnShortfall, name: &str, lift: Lift) -> Shortfall {
    Shortfall { component: name.to_owned(), have: missing.have, need: missing.needs, lift }
}

/// What Intel calls a component: its type, or else its category. The library leaves both out.
fn component_name(collateral: &Collateral, level: &TcbLevel, list: &str, place: usize) -> String {
    let info: Value = serde_json::from_str(&collateral.inner().tcb_info).unwrap_or_default();
    let at = collateral.tcb_info().tcb_levels.iter().position(|one| one == level).unwrap_or_default();
    let component = &info["tcbLevels"][at]["tcb"][list][place];
    let name = component["type"].as_str().or_else(|| component["category"].as_str()).unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}
