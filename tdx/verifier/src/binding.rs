//! What a quote must say of whom it speaks for.

use sha2::{Digest as _, Sha512};
use zipnet_core::digest::Context;
use zipnet_core::id::{PeerId, UniqueId};

use crate::measurement::ReportData;

/// The report data of a process: `SHA-512("zipnet v1 report data" ‖ instance ‖ peer ‖ boot key)`.
///
/// The boot key is born in the trust domain and never leaves it. Without it in here, a quote would speak for whoever
/// holds the node's secret, on any machine.
#[must_use]
pub fn report_data(instance: &UniqueId, peer: &PeerId, boot_key: &[u8; 32]) -> ReportData {
    let mut hasher = Sha512::new();
    hasher.update(Context::ReportData.text());
    hasher.update(instance.0);
    hasher.update(peer.0);
    hasher.update(boot_key);
    ReportData(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hashlib`, from the rule above.
    const KNOWN: &str = "442d3059b7ce30511ccdc96aff79a8ad3d4c01ac06963f41937a6799ec765fca7daeb7c1fd7210bff3854e595a1be8e03f21d70043205af94efb75ae99e2efff";

    #[test]
    fn report_data_is_what_the_page_says() {
        let (instance, peer, boot) = (UniqueId([1; 32]), PeerId([2; 32]), [3; 32]);
        assert_eq!(report_data(&instance, &peer, &boot).to_string(), KNOWN);
        for other in [
            report_data(&UniqueId([9; 32]), &peer, &boot),
            report_data(&instance, &PeerId([9; 32]), &boot),
            report_data(&instance, &peer, &[9; 32]),
        ] {
            assert_ne!(other.to_string(), KNOWN);
        }
    }
}
